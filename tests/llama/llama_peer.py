"""llama.cpp by way of llama-cpp-python: what the tests need of it, on one sequence of one context."""

import ctypes

import llama_cpp
import numpy

_quiet = llama_cpp.llama_log_callback(lambda level, text, user: None)  # called as long as the process lives
llama_cpp.llama_log_set(_quiet, ctypes.c_void_p(0))
llama_cpp.llama_backend_init()


class Peer:
    """A context on a GGUF file. cache: ggml's number of the cache's element type (1: f16)."""

    def __init__(self, model, *, flash_attention, cache=llama_cpp.GGML_TYPE_F16, n_ctx=1024, streams=1,
                 unified=False):
        how = llama_cpp.llama_model_default_params()
        how.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(model).encode(), how)
        assert self.model, f"llama.cpp cannot load {model}"
        self.vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        how = llama_cpp.llama_context_default_params()
        how.n_ctx = n_ctx * streams
        how.n_batch = how.n_ubatch = 512
        how.n_threads = how.n_threads_batch = 1  # its threads wait by spinning, which a busy machine punishes
        how.n_seq_max = streams
        how.kv_unified = unified
        how.type_k = how.type_v = cache
        how.flash_attn_type = (llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash_attention
                               else llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        self.ctx = llama_cpp.llama_init_from_model(self.model, how)
        assert self.ctx, "llama.cpp makes no context"

    def close(self):
        llama_cpp.llama_free(self.ctx)
        llama_cpp.llama_model_free(self.model)

    def load_file(self, path, seq=0, capacity=8192):
        """The tokens of the file, or None where llama.cpp refuses it."""
        tokens = (llama_cpp.llama_token * capacity)()
        count = ctypes.c_size_t(0)
        read = llama_cpp.llama_state_seq_load_file(self.ctx, str(path).encode(), seq, tokens, capacity,
                                                   ctypes.byref(count))
        return list(tokens[:count.value]) if read else None

    def save_file(self, path, tokens, seq=0):
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        assert llama_cpp.llama_state_seq_save_file(self.ctx, str(path).encode(), seq, ids, len(tokens))

    def set_data(self, state, seq=0):
        buffer = (ctypes.c_uint8 * len(state)).from_buffer_copy(state)
        return llama_cpp.llama_state_seq_set_data(self.ctx, buffer, len(state), seq)

    def get_data(self, seq=0):
        size = llama_cpp.llama_state_seq_get_size(self.ctx, seq)
        buffer = (ctypes.c_uint8 * size)()
        assert llama_cpp.llama_state_seq_get_data(self.ctx, buffer, size, seq) == size
        return bytes(buffer)

    def positions(self, seq=0):
        memory = llama_cpp.llama_get_memory(self.ctx)
        return (llama_cpp.llama_memory_seq_pos_min(memory, seq), llama_cpp.llama_memory_seq_pos_max(memory, seq))

    def remove(self, seq):
        assert llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self.ctx), seq, -1, -1)

    def forward(self, tokens, position, seq=0):
        """Logits of all `tokens`, which begin at `position`: [len(tokens), vocab]."""
        batch = llama_cpp.llama_batch_init(len(tokens), 0, 1)
        try:
            batch.n_tokens = len(tokens)
            for i, token in enumerate(tokens):
                batch.token[i] = token
                batch.pos[i] = position + i
                batch.n_seq_id[i] = 1
                batch.seq_id[i][0] = seq
                batch.logits[i] = True
            assert llama_cpp.llama_decode(self.ctx, batch) == 0, "llama.cpp cannot decode these tokens"
            logits = llama_cpp.llama_get_logits(self.ctx)
            return numpy.ctypeslib.as_array(logits, shape=(len(tokens), self.vocab)).copy()
        finally:
            llama_cpp.llama_batch_free(batch)

    def greedy(self, tokens, position, count, seq=0):
        """`count` tokens behind these, the likeliest each time."""
        out = [int(self.forward(tokens, position, seq)[-1].argmax())]
        position += len(tokens)
        while len(out) < count:
            out.append(int(self.forward(out[-1:], position, seq)[-1].argmax()))
            position += 1
        return out
