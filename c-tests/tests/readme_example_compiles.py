#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Compiles each C snippet of README.md as it stands there, in a dialect of C or C++, with no warning.

A my_something that is put into a table is declared as what that field of the table is.

usage: readme_example_compiles.py PROJECT STANDARD COMPILER..."""
import pathlib
import re
import subprocess
import sys

PRELUDE = """#include <blkmig.h>
uint64_t my_limit(QEMUFile *f);
void my_stop_guest(void);
"""


def declarations(snippet):
    for table, fields in re.findall(r"\b(BlkMig\w+) \w+ = \{(.*?)\};", snippet, flags=re.S):
        for field, function in re.findall(r"\.(\w+) = (my_\w+)", fields):
            yield f"__extension__ __typeof__(*((({table} *)0)->{field})) {function};\n"


def main():
    project, standard, *compiler = sys.argv[1:]
    snippets = re.findall(r"```c\n(.*?)```", pathlib.Path(project, "README.md").read_text(encoding="utf-8"), flags=re.S)
    if not snippets and "examples/host.c" not in pathlib.Path(project, "README.md").read_text(encoding="utf-8"):
        sys.exit("README.md has neither a C snippet nor a pointer to examples/host.c")
    language = "c++" if "++" in standard else "c"
    # A snippet leaves out functions, which C++ reports as missing initializers.
    options = ["-std=" + standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-Wno-missing-field-initializers"]
    for snippet in snippets:
        text = PRELUDE + "".join(declarations(snippet)) + "#line 1 \"the snippet in README.md\"\n" + snippet
        compiled = subprocess.run([*compiler, *options, "-fsyntax-only", f"-I{project}/include", "-x", language, "-"],
                                  input=text, text=True)
        if compiled.returncode:
            sys.exit(f"README.md's snippet is not valid {standard}")
    print(f"{len(snippets)} snippets are valid {standard}")


if __name__ == "__main__":
    main()
