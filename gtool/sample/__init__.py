"""`gtool sample`: pictures from trained networks."""

import sys

import gtool

sys.modules[__name__].__class__ = gtool.CallablePackage
