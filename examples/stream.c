/* stream.c - streams a text through a trained model at constant memory, keeps what it remembers in a file, and goes on from
 * that file with generated text.
 *
 *     stream DIR SESSION.safetensors < text.txt */
#include <mneme.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, mn_message());
  return 1;
}

static bool print_token(void *ctx, int32_t token, const char *text, size_t bytes) {
  (void)token;
  fwrite(text, 1, bytes, (FILE *)ctx);
  return true; /* go on */
}

int main(int argc, char **argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s DIR SESSION.safetensors < text.txt\n", argv[0]);
    return 2;
  }
  mn_lm *lm;
  mn_stream *stream;
  if (mn_lm_open(argv[1], 0, &lm) != MN_OK) return failed(argv[1]);
  if (mn_stream_new(lm, NULL, &stream) != MN_OK) return failed("stream");

  /* Line by line, whatever the length: the state has one size. Each token is the target of the one before it. */
  char line[4096];
  double sum = 0;
  long long scored = 0;
  while (fgets(line, sizeof line, stdin)) {
    size_t n = 0, bytes = 0;
    while (line[bytes]) bytes++;
    int32_t *tokens;
    if (mn_lm_encode(lm, line, bytes, &tokens, &n) != MN_OK) return failed("encode");
    float *nll = malloc((n + 1) * sizeof *nll);
    int32_t *targets = malloc((n + 1) * sizeof *targets);
    if (!nll || !targets) return failed("memory");
    for (size_t i = 0; i < n; i++) targets[i] = i + 1 < n ? tokens[i + 1] : -1;
    if (n > 0 && mn_stream_score(stream, tokens, targets, (int64_t)n, nll) != MN_OK) return failed("score");
    for (size_t i = 0; i + 1 < n; i++, scored++) sum += nll[i];
    free(nll);
    free(targets);
    mn_release(tokens);
  }
  printf("%lld tokens read, perplexity %.2f, %zu bytes remembered\n", (long long)mn_stream_position(stream),
         scored ? exp(sum / (double)scored) : 0.0, mn_stream_state_bytes(stream));
  if (mn_stream_save(stream, argv[2]) != MN_OK) return failed(argv[2]);
  mn_stream_free(stream);

  /* Another stream, which could be in another process, begins with that memory. */
  int32_t *prompt;
  size_t n;
  if (mn_stream_new(lm, NULL, &stream) != MN_OK || mn_stream_load(stream, argv[2]) != MN_OK) return failed(argv[2]);
  if (mn_lm_encode(lm, "It was", 6, &prompt, &n) != MN_OK) return failed("encode");
  const char *const settings[] = {"temperature=0.7", "seed=1", NULL};
  printf("It was");
  if (mn_stream_generate(stream, prompt, (int64_t)n, 40, settings, print_token, stdout) != MN_OK) return failed("generate");
  printf("\n");
  mn_release(prompt);
  mn_stream_free(stream);
  mn_lm_free(lm);
  return 0;
}
