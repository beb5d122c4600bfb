#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The lists of the ABI, from the oldest on, each have what the one before has, a struct's fields first and in the
same order; and the last one has all that blkmig.h declares.

usage: lists_are_complete.py HEADER LIST..."""
import pathlib
import re
import sys


def listed(path):
    """The fields of each struct, and the functions."""
    text = pathlib.Path(path).read_text()
    structs = {name: [] for name in re.findall(r"^STRUCT\((\w+),", text, re.MULTILINE)}
    for struct, field in re.findall(r"^FIELD\((\w+), \d+, (\w+),", text, re.MULTILINE):
        structs[struct].append(field)
    return structs, set(re.findall(r"^FUNCTION\((\w+),", text, re.MULTILINE))


def declared(header):
    text = re.sub(r"/\*.*?\*/", "", pathlib.Path(header).read_text(), flags=re.DOTALL)
    structs = {}
    for name, body in re.findall(r"typedef struct (\w+) \{(.*?)\} \1;", text, re.DOTALL):
        fields = [field.strip() for field in body.split(";") if field.strip()]
        structs[name] = [re.search(r"\(\*(\w+)\)|(\w+)$", field) for field in fields]
        structs[name] = [found[1] or found[2] for found in structs[name]]
    return structs, set(re.findall(r"\b(blk_mig_\w+)\(", text))


def differences(old, new):
    """What of the old one the new one lacks, or has in another place."""
    for name, fields in old[0].items():
        if new[0].get(name, [])[:len(fields)] != fields:
            yield f"struct {name}: {fields} became {new[0].get(name)}"
    for name in sorted(old[1] - new[1]):
        yield f"function {name} is gone"


def main():
    header, *paths = sys.argv[1:]
    lists = [listed(path) for path in paths]
    now = declared(header)
    if len(now[0]) < 8 or len(now[1]) < 20:
        sys.exit(f"{header}: this is not blkmig.h")
    wrong = [text for old, new in zip(lists, [*lists[1:], now]) for text in differences(old, new)]
    wrong += [f"not in {paths[-1]}: {text}" for text in differences(now, lists[-1])]
    print("\n".join(wrong))
    sys.exit(bool(wrong))


main()
