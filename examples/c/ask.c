/* Asks one question about a document: answered from the store if the document was read before, else it is read now.
 *
 *   cc ask.c $(pkg-config --cflags --libs finchkv) -o ask
 *   ./ask MODEL.gguf STORE DOCUMENT.txt "the question"
 *
 * A prefix that the system does not know: PKG_CONFIG_PATH=PREFIX/lib/pkgconfig, and LD_LIBRARY_PATH=PREFIX/lib to run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <finchkv.h>

/* Ends the program with the library's sentence. `error` is where the call put it: its value would be taken too early.
 */
static void check(fkv_code code, fkv_error** said) {
  fkv_error* error = *said;
  if (code == FKV_OK) return;
  fprintf(stderr, "%s\n", error != NULL ? fkv_error_message(error) : fkv_code_name(code));
  fkv_error_free(error);
  exit(1);
}

static fkv_str text(const char* s) {
  fkv_str view;
  view.data = s;
  view.size = strlen(s);
  return view;
}

static char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  char* bytes = NULL;
  size_t room = 0, got;
  *size = 0;
  if (file == NULL) {
    perror(path);
    exit(1);
  }
  do {
    room += 1 << 16;
    bytes = (char*)realloc(bytes, room);
    if (bytes == NULL) exit(1);
    got = fread(bytes + *size, 1, room - *size, file);
    *size += got;
  } while (got != 0);
  fclose(file);
  return bytes;
}

/* The answer, piece by piece, as it is made. 0 would end it. */
static int print_piece(void* user, const char* piece, size_t size) {
  (void)user;
  fwrite(piece, 1, size, stdout);
  fflush(stdout);
  return 1;
}

int main(int argc, char** argv) {
  fkv_store_options where = FKV_STORE_OPTIONS_INIT;
  fkv_model_options which = FKV_MODEL_OPTIONS_INIT;
  fkv_ask_options question;
  fkv_answer_info info;
  fkv_store* store = NULL;
  fkv_model* model = NULL;
  fkv_answer* answer = NULL;
  fkv_error* error = NULL;
  size_t size;
  char* document;
  if (argc != 5) {
    fprintf(stderr, "usage: ask MODEL.gguf STORE DOCUMENT.txt QUESTION\n");
    return 2;
  }
  where.url = text(argv[2]);
  where.mode = FKV_WRITE;
  where.create = 1;
  check(fkv_store_open(&where, &store, &error), &error);
  which.path = text(argv[1]);
  check(fkv_model_open(&which, &model, &error), &error);

  document = read_file(argv[3], &size);
  memset(&question, 0, sizeof(question));
  question.struct_size = sizeof(question);
  question.document.data = document;
  question.document.size = size;
  question.prompt = text(argv[4]);
  question.max_tokens = 64;
  question.storage_dtype = FKV_BF16;
  question.on_text = print_piece;
  check(fkv_ask(model, store, &question, &answer, &error), &error);

  memset(&info, 0, sizeof(info));
  info.struct_size = sizeof(info);
  check(fkv_answer_get_info(answer, &info, &error), &error);
  printf("\n%s in %.0f ms\n", info.hit ? "found" : "read", info.hit ? info.reload_ms : info.compress_ms);
  fkv_answer_free(answer);
  fkv_model_close(model);
  fkv_store_close(store);
  free(document);
  return 0;
}
