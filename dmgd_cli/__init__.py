"""The command line: each command builds a configuration, calls its workflow and prints the result."""

import sys

if sys.platform == "win32":
    sys.exit("error: dmgd runs on Linux and macOS; on Windows, use it in WSL")
