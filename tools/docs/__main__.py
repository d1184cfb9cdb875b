"""Write what is generated, or with --check tell what is not current (exit status 1)."""

import sys

from tools.docs.pages import DOCS, current

stale = [(path, text) for path, text in current() if not path.exists() or path.read_text() != text]
for path, text in stale:
    if "--check" not in sys.argv:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    print(f"{'stale' if '--check' in sys.argv else 'written'}: {path.relative_to(DOCS.parent)}")
sys.exit(1 if stale and "--check" in sys.argv else 0)
