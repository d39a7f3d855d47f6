/* chat.c - talks with a model about each line that is read, tells the answers as they are made, and keeps the dialogue in a file, from which the next
 * run goes on. "/back" takes the last turn back; "/fork FILE" keeps a copy of the dialogue as it stands under another name.
 *
 *     chat MODEL DIALOGUE.safetensors [TEMPLATE.jinja]        MODEL: a directory, Mneme's or Hugging Face's, or a GGUF file */
#include <mneme_chat.h>

#include <stdio.h>
#include <string.h>

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, mn_message());
  return 1;
}

static bool print_piece(void *ctx, const char *text, size_t bytes) {
  fwrite(text, 1, bytes, (FILE *)ctx);
  fflush((FILE *)ctx);
  return true; /* go on */
}

static mn_status begin(const mn_lm *lm, const char *template_file, const char *path, mn_chat **chat) {
  FILE *kept = fopen(path, "rb");
  if (!kept) return mn_chat_new(lm, template_file, "You are a friend of few words.", chat);
  fclose(kept);
  return mn_chat_load(lm, template_file, path, chat);
}

static mn_status fork_to(const mn_chat *chat, const char *path) {
  mn_chat *copy;
  mn_status status = mn_chat_fork(chat, &copy); /* could go its own way, in another thread's hands, too */
  if (status == MN_OK) status = mn_chat_save(copy, path);
  mn_chat_free(copy);
  return status;
}

int main(int argc, char **argv) {
  if (argc != 3 && argc != 4) {
    fprintf(stderr, "usage: %s MODEL DIALOGUE.safetensors [TEMPLATE.jinja]\n", argv[0]);
    return 2;
  }
  mn_lm *lm;
  mn_chat *chat;
  if (mn_lm_open(argv[1], 0, &lm) != MN_OK) return failed(argv[1]);
  if (begin(lm, argc > 3 ? argv[3] : NULL, argv[2], &chat) != MN_OK) return failed(argv[2]);
  printf("%lld turns so far\n", (long long)mn_chat_turns(chat));

  char line[4096];
  const char *const settings[] = {"temperature=0.7", "seed=1", NULL};
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    if (!strcmp(line, "/back")) {
      if (mn_chat_back(chat, 1) != MN_OK) printf("%s\n", mn_message());
    } else if (!strncmp(line, "/fork ", 6)) {
      if (fork_to(chat, line + 6) != MN_OK) printf("%s\n", mn_message());
    } else if (*line) {
      if (mn_chat_say(chat, line, 100, settings, print_piece, stdout) != MN_OK) return failed("answer");
      printf("\n");
    }
  }
  printf("%lld turns, %lld tokens computed\n", (long long)mn_chat_turns(chat), (long long)mn_chat_tokens_read(chat));
  if (mn_chat_turns(chat) > 0 && mn_chat_save(chat, argv[2]) != MN_OK) return failed(argv[2]);
  mn_chat_free(chat);
  mn_lm_free(lm);
  return 0;
}
