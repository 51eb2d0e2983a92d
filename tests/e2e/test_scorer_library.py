"""The installed library sluice::scorer: built against from outside, it scores as `sluice score`."""

import json
import re
import subprocess

import sluice

EXAMPLE = sluice.ROOT / "docs" / "examples" / "scorer"


@sluice.not_sanitized
class ScorerLibrary(sluice.Case):
    def run_checked(self, *words, **options):
        done = sluice.call(words, **options)
        self.assertEqual(done.returncode, 0, f"{words}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def install(self):
        prefix = self.folder / "installed"
        self.run_checked("cmake", "--install", sluice.BUILD, "--prefix", prefix,
                         "--component", "library")
        return prefix

    def test_the_example_scores_the_same_bits(self):
        prefix = self.install()
        build = self.folder / "build"
        self.run_checked("cmake", "-S", EXAMPLE, "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}",
                         "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror -std=c++17")
        self.run_checked("cmake", "--build", build)
        shop = self.folder / "shop"
        config = sluice.generate(shop, "--impressions", 5_000, "--seed", 5)
        for name, settings in (("f32", {}), ("bf16", {"model.precision": "bf16"})):
            self.replay(config, name, settings)
            lines = []
            for log in sorted((shop / "impressions").rglob("*.jsonl*")):
                lines += (self.run_checked("zstdcat", log) if log.suffix == ".zst"
                          else log.read_text()).splitlines()
            text = "\n".join(lines[:3_000] + ["{}"]) + "\n"
            ours = subprocess.run([sluice.BINARY, "score", self.folder / name], input=text,
                                  capture_output=True, text=True, check=False).stdout
            theirs = self.run_checked(build / "score_lines", self.folder / name, input=text)
            self.assertEqual(ours, theirs)
            self.assertEqual(len(ours.splitlines()), 3_001)
            self.assertIn("error", json.loads(ours.splitlines()[-1]))
        done = sluice.call([build / "score_lines", self.folder / "absent"], input="")
        self.assertEqual(done.returncode, 1)
        self.assertIn("there is no folder", done.stderr)

    def test_it_shows_its_interface_alone_and_needs_little(self):
        library = next((self.install()).rglob("libsluice_scorer.so"))
        symbols = self.run_checked("nm", "--dynamic", "--defined-only", "--demangle", library)
        names = [line.split(maxsplit=2)[2] for line in symbols.splitlines()]
        self.assertTrue(any("sluice::scorer::Scorer::score(" in name for name in names), names)
        self.assertEqual([name for name in names if "sluice::scorer::" not in name], [])
        needed = re.findall(r"NEEDED.*\[(.+?)\.so", self.run_checked("readelf", "-d", library))
        allowed = {"libsimdjson", "libxxhash", "libstdc++", "libm", "libgcc_s", "libc",
                   "ld-linux-x86-64"}
        self.assertLessEqual(set(needed), allowed)


if __name__ == "__main__":
    import unittest

    unittest.main()
