"""`gtool paint`: paintings of photographs and videos."""

import sys

import gtool

sys.modules[__name__].__class__ = gtool.CallablePackage
