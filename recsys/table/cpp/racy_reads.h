// Tells ThreadSanitizer which reads may meet a writer: those whose result a version will throw away then.
#pragma once

#if defined(__SANITIZE_THREAD__)
#define RECSYS_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define RECSYS_TSAN
#endif
#endif

#ifdef RECSYS_TSAN
extern "C" void AnnotateIgnoreReadsBegin(const char* file, int line);
extern "C" void AnnotateIgnoreReadsEnd(const char* file, int line);
#endif

namespace recsys::table {

// While one lives, this thread's reads are not checked; its writes are. Elsewhere it does nothing.
class RacyReads {
 public:
#ifdef RECSYS_TSAN
  RacyReads() noexcept { AnnotateIgnoreReadsBegin(__FILE__, __LINE__); }
  ~RacyReads() { AnnotateIgnoreReadsEnd(__FILE__, __LINE__); }
#else
  RacyReads() noexcept {}
#endif
  RacyReads(const RacyReads&) = delete;
  RacyReads& operator=(const RacyReads&) = delete;
};

}  // namespace recsys::table
