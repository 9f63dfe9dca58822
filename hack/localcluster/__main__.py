"""`python -m localcluster` is `hack/cluster`."""

from localcluster.cli import main

main()
