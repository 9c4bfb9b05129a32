# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs in the lab besides the cases"""
