# SPDX-License-Identifier: GPL-2.0-only
"""Real QEMU processes, driven over QMP: for the tests and the benchmark."""
