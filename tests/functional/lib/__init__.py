# SPDX-License-Identifier: GPL-2.0-or-later
"""The library of the functional tests, the demo and the benchmarks"""
