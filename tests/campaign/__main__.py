"""python -m tests.campaign …"""

import sys

from tests.campaign.campaign import main

if __name__ == "__main__":
    sys.exit(main())
