"""A new process that has a store and a model, and no document: what llama.cpp says from the entry, as JSON.

usage: resume.py FINCHKV MODEL.gguf STORE ID FLASH_ATTENTION COUNT PROMPT.json
"""

import json
import subprocess
import sys
from pathlib import Path

from llama_peer import Peer

finchkv, model, store, id_, flash, count, prompt = sys.argv[1:]
file = Path(store) / ".." / f"resumed-{id_}-{flash}"
layout = [] if int(flash) else ["--no-flash-attn"]
subprocess.run([finchkv, "export", id_, file, "--store", store, "--format", "llama-state", *layout],
               check=True, stdout=subprocess.DEVNULL)
peer = Peer(model, flash_attention=bool(int(flash)))
tokens = peer.load_file(file)
answer = peer.greedy(json.loads(Path(prompt).read_text()), len(tokens), int(count))
print(json.dumps({"tokens": tokens, "greedy": answer, "file": str(file)}))
peer.close()
