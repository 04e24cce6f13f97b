/* Sets on a device: the tensors that go out from there have the bytes of those in host memory, and outlive everything.
 * usage: device_test cpu|cuda. Compiled as C99 and as C++. */
#include <stdint.h>
#include <stdlib.h>

#include "tests/capi/device_memory.h"

enum { kLayers = 3, kHeads = 2, kDim = 16, kMost = 300, kDocument = 512, kRoom = kHeads * kMost * kDim };

static const uint32_t kept[kLayers] = {kMost, kMost, 7};
static uint8_t numbers[kLayers][2][kRoom * 4];
static uint8_t expected[kRoom * 4], got[kRoom * 4];
static int on_gpu = 0;

/* Numbers of a dtype, none of them infinite or nothing at all. */
static void make_numbers(uint32_t dtype) {
  uint32_t l, w, i;
  for (l = 0; l < kLayers; ++l) {
    for (w = 0; w < 2; ++w) {
      for (i = 0; i < kRoom; ++i) {
        const uint32_t place = (l * 2 + w) * kRoom + i;
        const float number = (float)((int32_t)(place * 2654435761U % 4001U) - 2000) / 500.0F;
        uint32_t bits;
        memcpy(&bits, &number, 4);
        if (dtype == FKV_F32) {
          memcpy(numbers[l][w] + (size_t)i * 4, &bits, 4);
        } else {
          const uint16_t half = (uint16_t)(dtype == FKV_BF16 ? bits >> 16 : (place % 2U << 15) + 0x2c00U + place % 0x1800U);
          memcpy(numbers[l][w] + (size_t)i * 2, &half, 2);
        }
      }
    }
  }
}

static fkv_put_options request(fkv_layer_view* layers, const int32_t* document, uint32_t dtype, uint32_t storage) {
  fkv_put_options o;
  uint32_t l;
  memset(&o, 0, sizeof(o));
  o.struct_size = sizeof(o);
  o.model.bytes[0] = (uint8_t)(1 + dtype);
  o.document_tokens = document;
  o.document_token_count = kDocument;
  o.policy = str("test");
  o.seed = storage;
  o.keep = kMost;
  o.n_layers = kLayers;
  o.n_kv_heads = kHeads;
  o.head_dim = kDim;
  o.origin_rows = 1;
  o.dtype = dtype;
  o.key_form = FKV_PRE_ROPE;
  o.next_position = kMost;
  o.rotary_dims = kDim;
  o.storage_dtype = storage;
  o.layers = layers;
  memset(layers, 0, kLayers * sizeof(*layers));
  for (l = 0; l < kLayers; ++l) {
    layers[l].n_kept = kept[l];
    layers[l].keys = numbers[l][0];
    layers[l].values = numbers[l][1];
  }
  return o;
}

static fkv_id put(fkv_store* store, uint32_t dtype, uint32_t storage) {
  int32_t document[kDocument];
  fkv_layer_view layers[kLayers];
  fkv_put_options o;
  fkv_id id;
  int32_t i;
  for (i = 0; i < kDocument; ++i) document[i] = i;
  make_numbers(dtype);
  o = request(layers, document, dtype, storage);
  memset(&id, 0, sizeof(id));
  OK(fkv_store_put(store, &o, &id, &error));
  return id;
}

static fkv_kvset* fetch(fkv_store* store, const fkv_id* id, fkv_device* device) {
  fkv_fetch* begun = NULL;
  fkv_kvset* set = NULL;
  if (device == NULL) {
    OK(fkv_store_fetch(store, id, &begun, &error));
  } else {
    OK(fkv_store_fetch_to(store, id, device, &begun, &error));
  }
  OK(fkv_fetch_finish(begun, &set, &error));
  fkv_fetch_free(begun);
  return set;
}

/* The tensor that `there` gives is that of `here`, but for where it is. */
static void same_tensor(const fkv_kvset* here, const fkv_kvset* there, const fkv_tensor_options* o, uint32_t layer_there) {
  fkv_tensor_options elsewhere = *o;
  DLManagedTensor *a = NULL, *b = NULL;
  int32_t i;
  elsewhere.layer = layer_there;
  OK(fkv_kvset_tensor(here, o, &a, &error));
  OK(fkv_kvset_tensor(there, &elsewhere, &b, &error));
  if (a == NULL || b == NULL) return;
  CHECK(a->dl_tensor.device.device_type == kDLCPU);
  CHECK(b->dl_tensor.device.device_type == (on_gpu ? kDLCUDA : kDLCPU) && b->dl_tensor.device.device_id == 0);
  CHECK(a->dl_tensor.ndim == b->dl_tensor.ndim && a->dl_tensor.byte_offset == b->dl_tensor.byte_offset);
  CHECK(memcmp(&a->dl_tensor.dtype, &b->dl_tensor.dtype, sizeof(DLDataType)) == 0);
  for (i = 0; i < a->dl_tensor.ndim; ++i) {
    CHECK(a->dl_tensor.shape[i] == b->dl_tensor.shape[i] && a->dl_tensor.strides[i] == b->dl_tensor.strides[i]);
  }
  CHECK(tensor_bytes(&a->dl_tensor) <= sizeof(expected));
  read_tensor(&a->dl_tensor, expected);
  memset(got, 0x5a, sizeof(got));
  read_tensor(&b->dl_tensor, got);
  CHECK(memcmp(expected, got, tensor_bytes(&a->dl_tensor)) == 0);
  a->deleter(a);
  b->deleter(b);
}

static void same_layer(const fkv_kvset* here, const fkv_kvset* there, uint32_t layer, uint32_t layer_there) {
  static const uint32_t dtypes[] = {FKV_DTYPE_AS_STORED, FKV_F32, FKV_F16, FKV_BF16};
  static const uint64_t bases[] = {0, 1000};
  const uint32_t *from = NULL, *to = NULL;
  size_t count = 0, count_there = 0;
  fkv_tensor_options o = FKV_TENSOR_OPTIONS_INIT;
  int dtype, choice;
  o.layer = layer;
  for (o.which = FKV_KEYS; o.which <= FKV_VALUES; ++o.which) {
    for (dtype = 0; dtype < 4; ++dtype) {
      for (choice = 0; choice < (o.which == FKV_KEYS ? 24 : 4); ++choice) {
        o.dtype = dtypes[dtype];
        o.head = choice % 2 == 0 ? FKV_ALL_HEADS : 1;
        o.stream = (uint64_t)(choice / 2 % 2); /* not said, or the legacy default stream, which reads here */
        o.rotate = (uint32_t)(choice / 4 % 2);
        o.order = (uint32_t)(choice / 8);
        o.base_position = bases[choice % 2];
        same_tensor(here, there, &o, layer_there);
      }
    }
  }
  OK(fkv_kvset_origins(here, layer, &from, &count, &error));
  OK(fkv_kvset_origins(there, layer_there, &to, &count_there, &error));
  CHECK(count == count_there && count == kept[layer] && memcmp(from, to, count * sizeof(*from)) == 0);
}

static void same_set(const fkv_kvset* here, const fkv_kvset* there) {
  fkv_kvset_info a, b;
  uint32_t l;
  memset(&a, 0, sizeof(a));
  memset(&b, 0, sizeof(b));
  a.struct_size = b.struct_size = sizeof(a);
  OK(fkv_kvset_get_info(here, &a, &error));
  OK(fkv_kvset_get_info(there, &b, &error));
  CHECK(a.device_type == FKV_ON_CPU && b.device_type == (on_gpu ? FKV_ON_CUDA : FKV_ON_CPU) && b.device_id == 0);
  CHECK(a.n_layers == b.n_layers && a.dtype == b.dtype && a.key_form == b.key_form && a.rotary_dims == b.rotary_dims);
  CHECK(a.next_position == b.next_position && a.doc_tokens == b.doc_tokens);
  for (l = 0; l < kLayers; ++l) same_layer(here, there, l, l);
}

static void every_way_there(fkv_store* store, fkv_device* device, uint32_t dtype, uint32_t storage) {
  const fkv_id id = put(store, dtype, storage);
  fkv_kvset* const here = fetch(store, &id, NULL);
  fkv_kvset* straight = fetch(store, &id, device);
  fkv_kvset *brought = NULL, *one = NULL;
  fkv_fetch* begun = NULL;
  uint32_t l;
  OK(fkv_kvset_to_device(here, device, &brought, &error));
  same_set(here, brought);
  same_set(here, straight);
  OK(fkv_store_fetch_to(store, &id, device, &begun, &error));
  for (l = kLayers; l-- > 0;) {
    OK(fkv_fetch_layer(begun, l, &one, &error));
    same_layer(here, one, l, 0);
    fkv_kvset_free(one);
  }
  FAILS(FKV_INVALID_ARGUMENT, "layer", fkv_fetch_layer(begun, kLayers, &one, &error));
  fkv_fetch_free(begun);
  fkv_kvset_free(straight);
  fkv_kvset_free(brought);
  fkv_kvset_free(here);
}

/* As stored: no copy, the same memory every time, and on a CPU the set's own. */
static void views(const fkv_kvset* here, const fkv_kvset* there) {
  fkv_tensor_options o = FKV_TENSOR_OPTIONS_INIT;
  DLManagedTensor *whole = NULL, *head = NULL, *host = NULL;
  o.which = FKV_VALUES;
  OK(fkv_kvset_tensor(there, &o, &whole, &error));
  OK(fkv_kvset_tensor(here, &o, &host, &error));
  o.head = 1;
  OK(fkv_kvset_tensor(there, &o, &head, &error));
  CHECK((char*)head->dl_tensor.data == (char*)whole->dl_tensor.data + tensor_bytes(&head->dl_tensor));
  CHECK((host->dl_tensor.data == whole->dl_tensor.data) == !on_gpu);
  whole->deleter(whole);
  head->deleter(head);
  host->deleter(host);
}

static void what_needs_numbers_on_the_host(fkv_store* store, fkv_device* device, const fkv_kvset* there) {
  fkv_llama_options llama = FKV_LLAMA_OPTIONS_INIT;
  fkv_put_options o;
  fkv_layer_view layers[kLayers];
  int32_t document[kDocument];
  fkv_bytes* state = NULL;
  fkv_kvset* again = NULL;
  fkv_id id;
  memset(document, 0, sizeof(document));
  o = request(layers, document, FKV_F32, FKV_F32);
  o.set = there;
  FAILS(FKV_INVALID_ARGUMENT, "on GPU 0", fkv_store_put(store, &o, &id, &error));
  FAILS(FKV_INVALID_ARGUMENT, "on GPU 0", fkv_kvset_to_llama_state(there, &llama, &state, NULL, &error));
  FAILS(FKV_INVALID_ARGUMENT, "on GPU 0", fkv_kvset_to_device(there, device, &again, &error));
}

#ifdef FINCHKV_TEST_CUDA
/* A reader that is slow to begin: the tensor is freed, and its memory wanted by others, long before it is read. */
static void what_is_freed_may_still_be_read(const fkv_kvset* here, const fkv_kvset* there) {
  const size_t big = (size_t)1 << 28;
  cudaStream_t stream;
  void *work = NULL, *copy = NULL;
  int round, i;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaMalloc(&work, big) == cudaSuccess && cudaMalloc(&copy, sizeof(got)) == cudaSuccess);
  for (round = 0; round < 20; ++round) {
    fkv_tensor_options o = FKV_TENSOR_OPTIONS_INIT;
    DLManagedTensor *tensor = NULL, *other = NULL, *host = NULL;
    size_t bytes;
    o.rotate = 1;
    o.base_position = (uint64_t)round;
    o.stream = round % 2 == 0 ? (uint64_t)(uintptr_t)stream : 0;
    OK(fkv_kvset_tensor(there, &o, &tensor, &error));
    bytes = tensor_bytes(&tensor->dl_tensor);
    for (i = 0; i < round * 4; ++i) CHECK(cudaMemsetAsync(work, i, big, stream) == cudaSuccess);
    CHECK(cudaMemcpyAsync(copy, tensor->dl_tensor.data, bytes, cudaMemcpyDeviceToDevice, stream) == cudaSuccess);
    tensor->deleter(tensor);
    o.stream = 1;
    for (i = 0; i < 4; ++i) {
      o.base_position = (uint64_t)(5000 + i);
      OK(fkv_kvset_tensor(there, &o, &other, &error));
      other->deleter(other);
    }
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(cudaMemcpy(got, copy, bytes, cudaMemcpyDeviceToHost) == cudaSuccess);
    o.base_position = (uint64_t)round;
    OK(fkv_kvset_tensor(here, &o, &host, &error));
    CHECK(memcmp(host->dl_tensor.data, got, bytes) == 0);
    host->deleter(host);
  }
  CHECK(cudaFree(work) == cudaSuccess && cudaFree(copy) == cudaSuccess && cudaStreamDestroy(stream) == cudaSuccess);
}
#endif

/* A tensor, made or a view, after its set, its device and the store are gone. */
static void tensors_outlive_everything(fkv_store* store, fkv_device* device) {
  const fkv_id id = put(store, FKV_F32, FKV_F32);
  fkv_kvset* const here = fetch(store, &id, NULL);
  fkv_kvset* const there = fetch(store, &id, device);
  fkv_tensor_options o = FKV_TENSOR_OPTIONS_INIT;
  DLManagedTensor *view = NULL, *turned = NULL, *host = NULL;
  OK(fkv_kvset_tensor(there, &o, &view, &error));
  o.rotate = 1;
  OK(fkv_kvset_tensor(there, &o, &turned, &error));
  OK(fkv_kvset_tensor(here, &o, &host, &error));
  fkv_kvset_free(here);
  fkv_kvset_free(there);
  fkv_device_close(device);
  fkv_store_close(store);
  read_tensor(&view->dl_tensor, got);
  CHECK(memcmp(got, numbers[0][0], tensor_bytes(&view->dl_tensor)) == 0);
  view->deleter(view);
  read_tensor(&turned->dl_tensor, got);
  CHECK(memcmp(got, host->dl_tensor.data, tensor_bytes(&turned->dl_tensor)) == 0);
  turned->deleter(turned);
  host->deleter(host);
}

static void devices_that_are_none(void) {
  fkv_device_options o = FKV_DEVICE_OPTIONS_INIT;
  fkv_device* device = NULL;
  o.device = str("abacus");
  FAILS(FKV_INVALID_ARGUMENT, "there is no device 'abacus'", fkv_device_open(&o, &device, &error));
  o.device = str("cpu");
  o.threads = 5000;
  FAILS(FKV_INVALID_ARGUMENT, "threads is 5000", fkv_device_open(&o, &device, &error));
  o.threads = 1;
  o.device = str("cuda");
#ifdef FINCHKV_TEST_CUDA
  o.ordinal = 4000000000U;
  CHECK(fkv_device_open(&o, &device, NULL) != FKV_OK);
#else
  FAILS(FKV_UNSUPPORTED, "built without CUDA", fkv_device_open(&o, &device, &error));
#endif
  CHECK(device == NULL);
}

int main(int argc, char** argv) {
  static const uint32_t layouts[][2] = {{FKV_F32, FKV_F32}, {FKV_F16, FKV_F16}, {FKV_BF16, FKV_BF16}, {FKV_F32, FKV_Q8},
                                        {FKV_F32, FKV_Q4},  {FKV_F16, FKV_Q8},  {FKV_BF16, FKV_Q4}};
  fkv_store_options s = FKV_STORE_OPTIONS_INIT;
  fkv_device_options d = FKV_DEVICE_OPTIONS_INIT;
  fkv_store* store = NULL;
  fkv_device* device = NULL;
  fkv_error* absent = NULL;
  fkv_kvset *here = NULL, *there = NULL;
  fkv_id id;
  size_t i;
  if (argc != 2) return 2;
  on_gpu = strcmp(argv[1], "cuda") == 0;
  d.device = str(argv[1]);
  d.threads = 2;
  if (fkv_device_open(&d, &device, &absent) != FKV_OK) {
    const int skipped = fkv_error_code(absent) == FKV_UNAVAILABLE; /* ctest knows the sentence */
    fprintf(stderr, "%s\n", fkv_error_message(absent));
    fkv_error_free(absent);
    return skipped ? 0 : 1;
  }
  devices_that_are_none();
  s.url = str("memory:");
  s.mode = FKV_WRITE;
  OK(fkv_store_open(&s, &store, &error));
  for (i = 0; i < sizeof(layouts) / sizeof(layouts[0]); ++i) every_way_there(store, device, layouts[i][0], layouts[i][1]);
  id = put(store, FKV_F32, FKV_F32);
  here = fetch(store, &id, NULL);
  OK(fkv_kvset_to_device(here, device, &there, &error));
  views(here, there);
  if (on_gpu) what_needs_numbers_on_the_host(store, device, there);
#ifdef FINCHKV_TEST_CUDA
  if (on_gpu) what_is_freed_may_still_be_read(here, there);
#endif
  fkv_kvset_free(here);
  fkv_kvset_free(there);
  tensors_outlive_everything(store, device);
  if (failures == 0) printf("tensors on %s: as on the host\n", argv[1]);
  return failures == 0 ? 0 : 1;
}
