# SPDX-License-Identifier: GPL-2.0-or-later
"""What is tested in the lab: each file has a function add(tap)"""
