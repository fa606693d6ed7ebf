"""Finding faces: one file for each backend, all saying the same things about a face (:mod:`.face`).

===========  ==============================  ==========================================================
name         file                            needs
===========  ==============================  ==========================================================
insightface  insightface_faces.py            packages, and a model pack that is not in them
mediapipe    mediapipe_landmarks.py          the FACE_LANDMARKS of ComfyUI's own node
dlib         dlib_faces.py                   packages alone
box          box.py                          a box or mask that the user draws
===========  ==============================  ==========================================================

Importing this loads no face library; a backend loads its own when it sees its first frame.
"""

from .choose import BACKENDS, choose_backend
from .face import Expression, Face, FaceBackend, Pose

__all__ = ["BACKENDS", "Expression", "Face", "FaceBackend", "Pose", "choose_backend"]
