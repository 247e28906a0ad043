"""Names of datasets in their own formats as sources of records: `folder:birds/`, `coco:coco2017/`, `hf:cifar10`."""

from __future__ import annotations

from llada_uni.data.importers.kinds import KINDS

SOURCES = dict.fromkeys(KINDS, "llada_uni.data.importers.source:open_dataset")
