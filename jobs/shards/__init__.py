"""Make, check and look at shards.

ecgchat shards simulate --out sim --records 2000 --seed 0
ecgchat shards build ptb-xl sim --out s3://bucket/shards
ecgchat shards conversations s3://bucket/shards --out s3://bucket/dialogues --task dialogue
ecgchat shards conversations s3://bucket/shards --out s3://bucket/instruct --items ecg_instruct_45k.json
ecgchat shards lengths s3://bucket/dialogues --llm LLM --encoder ENCODER
ecgchat shards verify s3://bucket/shards
ecgchat shards inspect s3://bucket/shards
ecgchat shards show s3://bucket/shards simulated-ptb-xl-17 --out ecg.png
"""

from jobs.shards.command import main, parser

__all__ = ["main", "parser"]
