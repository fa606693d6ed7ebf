"""A world of people who do not exist: heads in 3D, drawn from continuous traits."""
