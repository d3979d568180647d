"""`gtool paint`: paintings of photographs and videos."""

import sys
from types import ModuleType
from typing import Any


class _PaintPackage(ModuleType):
    """Python puts this package in the place of the function `gtool.paint` when it is imported, so it can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return sys.modules["gtool"].__getattr__("paint")(*arguments, **options)


sys.modules[__name__].__class__ = _PaintPackage
