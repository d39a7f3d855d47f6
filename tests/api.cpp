// api.cpp - mneme.h from C++: it compiles with all warnings, links, and its handles fit the usual wrappers. test_api.c runs it
// with the directory of a trained model.
#include <mneme.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

struct Free {
  void operator()(mn_lm *p) const { mn_lm_free(p); }
  void operator()(mn_stream *p) const { mn_stream_free(p); }
};

static int failed() {
  std::fprintf(stderr, "%s\n", mn_message());
  return 1;
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  mn_lm *opened = nullptr;
  if (mn_lm_open(argv[1], 1, &opened) != MN_OK) return failed();
  std::unique_ptr<mn_lm, Free> lm(opened);
  mn_stream *begun = nullptr;
  const char *const settings[] = {"segment=32", nullptr};
  if (mn_stream_new(lm.get(), settings, &begun) != MN_OK) return failed();
  std::unique_ptr<mn_stream, Free> stream(begun);
  std::vector<int32_t> prompt = {1, 2, 3};
  std::string text;
  const auto add = [](void *ctx, int32_t, const char *s, size_t n) {
    static_cast<std::string *>(ctx)->append(s, n);
    return true;
  };
  if (mn_stream_generate(stream.get(), prompt.data(), 3, 20, nullptr, add, &text) != MN_OK) return failed();
  const char *path = nullptr;
  const float *surprise = nullptr;
  int64_t n = 0;
  if (mn_stream_report(stream.get(), "surprise") != MN_OK) return failed();
  if (mn_stream_reset(stream.get()) != MN_OK || mn_stream_feed(stream.get(), std::vector<int32_t>(23, 7).data(), 23, nullptr) != MN_OK)
    return failed();
  if (mn_stream_report_at(stream.get(), 0, &path, &surprise, &n) != MN_OK) return failed();
  if (n != 23 || !path || !surprise || !(std::vector<float>(surprise, surprise + n).back() >= 0)) return 1;
  std::printf("%lld %s\n", static_cast<long long>(mn_stream_position(stream.get())), mn_version());
  return text.empty() ? 1 : 0;
}
