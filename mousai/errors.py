"""What the person at the keyboard can fix, told in one line."""


class UserError(Exception):
    """A mistake that the user can mend: says what is wrong (with the value), what would be right, and the cure.

    `cli.main` prints it as one line on stderr and exits with code 1.
    """
