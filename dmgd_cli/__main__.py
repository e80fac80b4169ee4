"""`python -m dmgd_cli`"""

from dmgd_cli.app import main

main()
