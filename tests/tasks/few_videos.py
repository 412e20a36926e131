"""A plug-in (``--import``) under which the video sets have the two classes of their miniatures."""

from __future__ import annotations

from peftmark.tasks.video.sets import HMDB51, K400, UCF101, SSv2

SETS = (UCF101, HMDB51, SSv2, K400)

if __name__.startswith("peftmark_plugin_"):
    for cls in SETS:
        cls.classes, cls.size = 2, 32
