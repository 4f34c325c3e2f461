"""What all tests share: the fixtures that start servers."""

pytest_plugins = ["tests.support.fixtures"]
