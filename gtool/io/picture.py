"""Former home of what is now in gtool/io/pictures.py; goes when the last caller has moved."""

from gtool.io.pictures import *  # noqa: F403
