#!/usr/bin/env python3
"""Breaks the product on purpose, one patch at a time, and counts how many seeds of the simulator it
takes to notice.

    tests/simulation/mutants.py --build FOLDER [NAME...] [--seeds N] [--committed] [--jobs N]

Copies the tree to FOLDER/tree (the working tree's files; with --committed those of HEAD),
builds the target `simulation` there, and for each tests/simulation/mutations/*.patch: applies it,
builds, runs seeds 1, 2, 3, ... until one fails, takes it back. Prints a table. A patch that does not
apply, a mutant that does not build or that survives N seeds makes the exit code 1.
"""
import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MUTATIONS = Path("tests/simulation/mutations")


def copy_tree(tree: Path, committed: bool) -> None:
    """Only what differs is written, so that a second run builds little."""
    tree.mkdir(parents=True, exist_ok=True)
    if committed:
        archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True,
                                 stdout=subprocess.PIPE).stdout
        fresh = tree.parent / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        subprocess.run(["tar", "-x", "-C", str(fresh)], input=archive, check=True)
        origin = fresh
        names = [path.relative_to(fresh) for path in fresh.rglob("*") if path.is_file()]
    else:
        origin = ROOT
        listed = subprocess.run(
            ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
            check=True, stdout=subprocess.PIPE, text=True).stdout
        names = [Path(name) for name in listed.splitlines() if (ROOT / name).is_file()]
    for old in [path for path in tree.rglob("*") if path.is_file()]:
        if old.relative_to(tree) not in set(names) and "build" not in old.relative_to(tree).parts:
            old.unlink()
    for name in names:
        target = tree / name
        text = (origin / name).read_bytes()
        if target.is_file() and target.read_bytes() == text:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text)


class Builder:
    def __init__(self, tree: Path, jobs: int):
        self.tree = tree
        self.folder = tree / "build"
        self.jobs = jobs
        # The same objects wherever the tree lies.
        self.env = dict(os.environ, CCACHE_BASEDIR=str(tree), CCACHE_NOHASHDIR="1")

    def configure(self) -> None:
        subprocess.run(
            ["cmake", "-S", str(self.tree), "-B", str(self.folder), "-G", "Ninja",
             "-DCMAKE_BUILD_TYPE=RelWithDebInfo", "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O2 -g1"],
            check=True, env=self.env, stdout=subprocess.DEVNULL)

    def build(self) -> str:
        """Empty where it was built, else what the compiler said."""
        done = subprocess.run(["ninja", "-C", str(self.folder), f"-j{self.jobs}", "simulation"],
                              env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        return "" if done.returncode == 0 else done.stdout[-3000:]

    def run(self, seeds: int) -> tuple[int, str]:
        """The seed that failed, and what it said; 0 where none did."""
        done = subprocess.run(
            [str(self.folder / "simulation"), "--from", "1", "--seeds", str(seeds),
             "--until-failure"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace")
        if done.returncode == 0:
            return 0, ""
        found = re.findall(r"repeat with ./dev test --seed (\d+)", done.stderr)
        if not found:
            return -1, f"exit code {done.returncode}: {done.stderr[-500:]}"
        said = re.findall(r"^(?:seed \d+: (?!\w+ of \d+ impressions)|sluice: bug: )(.*)$",
                          done.stderr, re.M)
        return int(found[0]), said[-1] if said else "aborted"


def patch(tree: Path, file: Path, *options: str) -> bool:
    return subprocess.run(["patch", "-p1", "--fuzz", "3", "-s", *options, "-i", str(file)],
                          cwd=tree, stdout=subprocess.DEVNULL).returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("names", nargs="*", help="mutants; default: all")
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--committed", action="store_true")
    args = parser.parse_args()

    tree = args.build.resolve() / "tree"
    copy_tree(tree, args.committed)
    builder = Builder(tree, args.jobs)
    builder.configure()
    said = builder.build()
    if said:
        print(f"the tree does not build unchanged:\n{said}")
        return 1
    sane = min(args.seeds, 50)
    seed, said = builder.run(sane)
    if seed != 0:
        print(f"seed {seed} fails already without any mutation: {said}")
        return 1
    print(f"unchanged: {sane} seeds hold\n", flush=True)
    print(f"{'mutant':32} {'found by seed':>13} {'seconds':>8}  what was found", flush=True)

    bad = []
    patches = sorted((tree / MUTATIONS).glob("*.patch"))
    for file in patches:
        if args.names and file.stem not in args.names:
            continue
        saved = {tree / name: (tree / name).read_bytes()
                 for name in re.findall(r"^\+\+\+ b/(\S+)", file.read_text(), re.M)}
        if not patch(tree, file, "--dry-run"):
            print(f"{file.stem:32} the patch does not apply any more", flush=True)
            bad.append(file.stem)
            continue
        patch(tree, file)
        said = builder.build()
        if said:
            print(f"{file.stem:32} does not build:\n{said}", flush=True)
            bad.append(file.stem)
        else:
            begin = time.monotonic()
            seed, said = builder.run(args.seeds)
            seconds = time.monotonic() - begin
            found = str(seed) if seed > 0 else "SURVIVED" if seed == 0 else "?"
            print(f"{file.stem:32} {found:>13} {seconds:8.1f}  {said[:100]}", flush=True)
            if seed <= 0:
                bad.append(file.stem)
        for path, text in saved.items():
            path.write_bytes(text)
        for name in list(tree.rglob("*.orig")):
            name.unlink()
    print(f"\n{'not found: ' + ', '.join(bad) if bad else 'all of them were found'}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
