"""`python -m fedage.deploy` is `fedage`, found without a PATH."""

from fedage.deploy.cli import main

if __name__ == "__main__":
    main()
