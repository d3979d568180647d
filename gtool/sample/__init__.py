"""`gtool sample`: pictures from trained networks."""

import sys
from types import ModuleType
from typing import Any


class _SamplePackage(ModuleType):
    """Python puts this package in the place of the function `gtool.sample` when it is imported, so it can be called."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return sys.modules["gtool"].__getattr__("sample")(*arguments, **options)


sys.modules[__name__].__class__ = _SamplePackage
