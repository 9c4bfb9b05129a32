# SPDX-License-Identifier: GPL-2.0-or-later
"""What scripts/kvm-lab does on this machine: see tests/lab/README.rst"""
