# SPDX-License-Identifier: GPL-2.0-only
"""What a benchmark has found, for people and for programs: text, JSON, a table in Markdown and a bar chart."""
import dataclasses
import json
import statistics
from html import escape

from .bench_rows import COPY, MIRROR, OURS, UNMODIFIED, ZERO_BLOCKS

COLORS = {OURS: "#1f6feb", UNMODIFIED: "#9a6700", ZERO_BLOCKS: "#d4a72c", MIRROR: "#6e7781", COPY: "#afb8c1"}


class Report:
    """Collects runs by row and contestant."""

    def __init__(self, size, machine):
        self.size = size
        self.machine = machine
        self.runs = {}
        self.thin = []

    def add(self, row, contestant, run):
        self.runs.setdefault(row, {}).setdefault(contestant, []).append(run)

    def rate(self, run):
        return self.size / run.seconds / 1e6

    def medians(self, row, contestant):
        """MB/s, CPU seconds, MiB of memory over idle."""
        runs = self.runs[row][contestant]
        return (statistics.median(map(self.rate, runs)), statistics.median(run.cpu_seconds for run in runs),
                statistics.median(run.rss_kib for run in runs) / 1024)

    def ratios(self, row, contestant):
        """Ours to theirs, round by round: of the rates and of the CPU seconds."""
        pairs = list(zip(self.runs[row][OURS], self.runs[row][contestant]))
        return [theirs.seconds / ours.seconds for ours, theirs in pairs], \
               [ours.cpu_seconds / theirs.cpu_seconds for ours, theirs in pairs]

    def thin_figures(self):
        """The large image's time over the small one's, its space there over that here, bytes read over data."""
        return {
            "time_ratio": statistics.median(r["thin"]["seconds"] / r["full"]["seconds"] for r in self.thin),
            "allocated_ratio": statistics.median(r["thin"]["target_bytes"] / r["thin"]["source_bytes"]
                                                 for r in self.thin),
            "read_ratio": statistics.median(r["thin"]["read_bytes"] / r["thin"]["source_bytes"] for r in self.thin),
        }

    def table(self):
        """The Markdown table."""
        lines = ["| disk | by | MB/s | CPU s | memory over idle | ours is faster by | ours uses of its CPU |",
                 "|---|---|--:|--:|--:|--:|--:|"]
        for row, contestants in self.runs.items():
            for name in contestants:
                rate, cpu, memory = self.medians(row, name)
                line = f"| {row} | {name} | {rate:.0f} | {cpu:.2f} | {memory:.0f} MiB |"
                if name == OURS or OURS not in contestants:
                    line += " | |"
                else:
                    rates, cpus = self.ratios(row, name)
                    line += f" {statistics.median(rates):.2f} ({min(rates):.2f} to {max(rates):.2f}) |"
                    line += f" {statistics.median(cpus):.2f} |"
                lines.append(line)
        return "\n".join(lines) + "\n"

    def thin_text(self):
        figures = self.thin_figures()
        return (f"A sparse image of 20 GiB that holds 200 MiB takes {figures['time_ratio']:.2f} times as long as an "
                f"image of 200 MiB;\non the destination it takes {figures['allocated_ratio']:.3f} times the space that "
                f"it takes on the source;\nthe source reads {figures['read_ratio']:.3f} times the data.\n")

    def text(self):
        parts = [self.machine + "\n", self.table() if self.runs else "", self.thin_text() if self.thin else ""]
        return "\n".join(filter(None, parts))

    def json(self):
        rows = {}
        for row, contestants in self.runs.items():
            for name, runs in contestants.items():
                entry = {"runs": [{**dataclasses.asdict(run), "mb_per_s": self.rate(run)} for run in runs],
                         "median": dict(zip(("mb_per_s", "cpu_seconds", "rss_mib"), self.medians(row, name)))}
                if name != OURS and OURS in contestants:
                    entry["ours_to_this"] = dict(zip(("rate", "cpu"), self.ratios(row, name)))
                rows.setdefault(row, {})[name] = entry
        thin = {"rounds": self.thin, **self.thin_figures()} if self.thin else None
        return json.dumps({"machine": self.machine, "bytes": self.size, "rows": rows, "thin": thin}, indent=1) + "\n"

    def svg(self):
        """The rates as bars, one group a row."""
        bar, gap, left, width = 18, 16, 200, 760
        most = max(self.medians(row, name)[0] for row in self.runs for name in self.runs[row])
        parts, y = [], 34
        for row, contestants in self.runs.items():
            parts.append(text(left - 10, y + len(contestants) * bar / 2 + 4, row, anchor="end"))
            for name in contestants:
                rate = self.medians(row, name)[0]
                length = rate / most * (width - left - 240)
                size = f'width="{length:.0f}" height="{bar - 3}"'
                parts.append(f'<rect x="{left}" y="{y}" {size} fill="{COLORS[name]}"/>')
                parts.append(text(left + length + 6, y + bar - 6, f"{rate:.0f}  {name}", bold=name == OURS))
                y += bar
            y += gap
        title = text(left, 20, f"MB/s, {self.size >> 20} MiB from process to process (more is better)", bold=True)
        return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" viewBox="0 0 {width} {y}" '
                f'font-family="sans-serif" font-size="12">\n<rect width="{width}" height="{y}" fill="#fff"/>\n'
                + "\n".join([title, *parts]) + "\n</svg>\n")


def text(x, y, content, anchor="start", bold=False):
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{weight}>{escape(content)}</text>'
