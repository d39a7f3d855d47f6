/* chat.c - talks with a model about each line that is read, tells the answers as they are made, and keeps the dialogue in a file, from which the next
 * run goes on. "/back" takes the last turn back; "/fork FILE" keeps a copy of the dialogue as it stands under another name.
 *
 *     chat MODEL DIALOGUE.safetensors [TEMPLATE.jinja]        MODEL: a directory, Mneme's or Hugging Face's, or a GGUF file */
#include <mneme_chat.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
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

/* Anew only where there is no file: one that cannot be read is not to be lost. */
static mn_status begin(const mn_lm *lm, const char *template_file, const char *path, mn_chat **chat) {
  FILE *kept = fopen(path, "rb");
  if (!kept && errno == ENOENT) return mn_chat_new(lm, template_file, "You are a friend of few words.", chat);
  if (kept) fclose(kept);
  return mn_chat_load(lm, template_file, path, chat);
}

static mn_status fork_to(const mn_chat *chat, const char *path) {
  mn_chat *copy;
  mn_status status = mn_chat_fork(chat, &copy); /* could go its own way, in another thread's hands, too */
  if (status == MN_OK) status = mn_chat_save(copy, path);
  mn_chat_free(copy);
  return status;
}

/* A line without its end, however long; false: there is none. */
static bool next_line(char **line, size_t *room) {
  const ssize_t n = getline(line, room, stdin);
  if (n > 0 && (*line)[n - 1] == '\n') (*line)[n - 1] = 0;
  return n >= 0;
}

static int talk(mn_chat *chat) {
  const char *const settings[] = {"temperature=0.7", "seed=1", NULL};
  char *line = NULL;
  size_t room = 0;
  int status = 0;
  while (!status && next_line(&line, &room)) {
    if (!strcmp(line, "/back")) {
      if (mn_chat_back(chat, 1) != MN_OK) printf("%s\n", mn_message());
    } else if (!strncmp(line, "/fork ", 6)) {
      if (fork_to(chat, line + 6) != MN_OK) printf("%s\n", mn_message());
    } else if (*line) {
      if (mn_chat_say(chat, line, 100, settings, print_piece, stdout) != MN_OK) status = failed("answer");
      printf("\n");
    }
  }
  free(line);
  printf("%lld turns, %lld tokens computed\n", (long long)mn_chat_turns(chat), (long long)mn_chat_tokens_read(chat));
  return status;
}

/* A dialogue without turns has nothing to keep, and no file. */
static int keep(mn_chat *chat, const char *path) {
  if (mn_chat_turns(chat) > 0) return mn_chat_save(chat, path) == MN_OK ? 0 : failed(path);
  return remove(path) == 0 || errno == ENOENT ? 0 : (perror(path), 1);
}

int main(int argc, char **argv) {
  if (argc != 3 && argc != 4) {
    fprintf(stderr, "usage: %s MODEL DIALOGUE.safetensors [TEMPLATE.jinja]\n", argv[0]);
    return 2;
  }
  mn_lm *lm = NULL;
  mn_chat *chat = NULL;
  int status = mn_lm_open(argv[1], 0, &lm) == MN_OK ? 0 : failed(argv[1]);
  if (!status && begin(lm, argc > 3 ? argv[3] : NULL, argv[2], &chat) != MN_OK) status = failed(argv[2]);
  if (!status) {
    printf("%lld turns so far\n", (long long)mn_chat_turns(chat));
    status = talk(chat);
    if (keep(chat, argv[2]) != 0) status = 1; /* what was said before an answer failed, too */
  }
  mn_chat_free(chat);
  mn_lm_free(lm);
  return status;
}
