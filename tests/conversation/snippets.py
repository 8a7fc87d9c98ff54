"""Programs that use the conversation engine in every way that its first users did, by the names they knew.

`MODEL` is the path of a GGUF file. Where a program mentions torch it gets `STAND_INS`: one that moves over need not drop it.
"""

from __future__ import annotations

STAND_INS = """
import contextlib, sys, types
torch = types.ModuleType("torch")
torch.inference_mode = contextlib.nullcontext
torch.cuda = types.SimpleNamespace(is_available=lambda: False, empty_cache=lambda: None)
sys.modules["torch"] = torch
"""

CONFIGURATION = """
from kolosal.conversation.yaml_loading import load_azure_config, load_chat_server_config, load_model_config
from kolosal.conversation.yaml_loading import load_system_prompt, load_yaml
sampling = load_model_config().get("parameters", {})
assert sampling.get("temperature") == 0.7
assert load_chat_server_config().get("port", 8000) == 8000
assert load_azure_config().get("key_vault_url") is None
assert load_yaml("model_config.yaml")["model"] == load_model_config()
"""

LOADING = """
from kolosal.conversation.conversation_engine import ConversationEngine
from kolosal.conversation.model_loading import initialize

chosen = load_model_config()
prompts = load_system_prompt()
tok, model = initialize(device=chosen.get("device", "auto"), model_id=chosen.get("id"))
print("Model:", chosen.get("id"))
talk = ConversationEngine(tok=tok, model=model, system_prompt=prompts, improvement=True, intermediate_steps=True)
print("".join(talk.stream_reply("What is a comet made of?")))
print("Revised:", talk.last_result.get("revision2", "nothing"))
assert talk.last_result["reply"]
model.close()
"""

TRANSFORMERS = """
from kolosal.conversation import ConversationEngine
from kolosal.conversation.model_loading import AutoModelForCausalLM, AutoTokenizer

tok = AutoTokenizer.from_pretrained(MODEL)
model = AutoModelForCausalLM.from_pretrained(MODEL, device_map="auto")
assert model.host is tok.host
prompts = {"assistant": "Answer in one sentence.", "reviser": "Make drafts better."}
talk = ConversationEngine(tok, model, prompts)
"""

TALKING = """
for piece in talk.stream_reply("Good morning!"):
    print(piece, end="", flush=True)
print("Reply:", talk.last_result["reply"])

talk.conversation_history = [
    {"role": "user", "content": "Our ship is called Wren."},
    {"role": "assistant", "content": "A fine name."},
]
for piece in talk.stream_reply("What is our ship called?"):
    print(piece, end="", flush=True)
print("Turns:", len(talk.conversation_history))
assert len(talk.conversation_history) == 4
"""

IMPROVING = """
talk.set_improvement(True)
print("".join(talk.stream_reply("Why do tides come twice a day?")))
made = talk.last_result
print(made["draft_answer"], made["suggestions1"], made["revision2"])
talk.set_improvement(True).set_intermediate_steps(True)
print("".join(talk.stream_reply("Why is snow white?")))
talk.set_improvement(False)
talk.set_intermediate_steps(True)
"""

FUNCTIONS = """
import torch
from kolosal.conversation.inputs import prepare_inputs
from kolosal.conversation.outputs import get_reply, stream_generate, stream_reply

print("".join(stream_reply(tok, model, prompts, "Name a river.")))
print(get_reply(tok, model, prompts, "Name a mountain."))

before = [{"role": "user", "content": "Count to two."}, {"role": "assistant", "content": "One, two."}]
inputs = prepare_inputs(tok, model, prompts, "And to three?", conversation_history=before)
with torch.inference_mode():
    tokens = model.generate(**inputs, max_new_tokens=8)
    print(tokens)
assert tokens.shape[1] > inputs["input_ids"].shape[1]

inputs = prepare_inputs(tok, model, prompts, "Rhyme something with sea.")
for piece in stream_generate(inputs, tok, model, max_new_tokens=8):
    if piece is not None:
        print(piece, end="", flush=True)
"""

LOOPS = """
try:
    for piece in talk.stream_reply("Describe a lighthouse."):
        print(piece, end="", flush=True)
except Exception as error:
    print("Failed:", error)

answers = []
for question in ("What is salt?", "What is glass?"):
    for _ in talk.stream_reply(question):
        pass
    answers.append(talk.last_result["reply"])
print("Answers:", len(answers))

with torch.inference_mode():
    print("".join(talk.stream_reply("Say goodbye.")))
if torch.cuda.is_available():
    torch.cuda.empty_cache()
"""
