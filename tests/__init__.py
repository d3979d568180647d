from pathlib import Path

# Helpers were beside this file before; goes when the last import has moved to `tests.helpers`.
__path__.append(str(Path(__file__).parent / "helpers"))
