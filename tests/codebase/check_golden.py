"""The golden numbers that are kept are those that their script writes."""

import os
import subprocess
import sys
import unittest

GOLDEN = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden")


class GoldenTest(unittest.TestCase):
    def test_the_scripts_write_what_is_kept(self):
        # The others need libraries that the tests do not install.
        for name in ("optimizer_steps", "objectives"):
            with self.subTest(name):
                script = os.path.join(GOLDEN, name + ".py")
                made = subprocess.run([sys.executable, script], capture_output=True, check=True)
                with open(os.path.join(GOLDEN, name + ".json"), "rb") as file:
                    self.assertEqual(made.stdout, file.read())


if __name__ == "__main__":
    unittest.main()
