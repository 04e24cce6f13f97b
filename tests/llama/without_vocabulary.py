"""A GGUF file again, without its tokenizer: llama.cpp refuses a placeholder vocabulary, and takes none at all."""

from gguf import GGUFReader, GGUFValueType, GGUFWriter


def without_vocabulary(source, target):
    read = GGUFReader(source)
    arch = read.fields["general.architecture"].contents()
    write = GGUFWriter(target, arch)
    for key, field in read.fields.items():
        if key.startswith(("GGUF.", "tokenizer.")) or key == "general.architecture":
            continue
        if field.types[0] == GGUFValueType.ARRAY:
            write.add_array(key, field.contents())
        else:
            write.add_key_value(key, field.contents(), field.types[0])
    write.add_string("tokenizer.ggml.model", "none")
    if f"{arch}.vocab_size" not in read.fields:
        write.add_uint32(f"{arch}.vocab_size", len(read.fields["tokenizer.ggml.tokens"].contents()))
    for tensor in read.tensors:
        write.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    write.write_header_to_file()
    write.write_kv_data_to_file()
    write.write_tensors_to_file()
    write.close()
