#include "vmm/text/pattern.hpp"

#include <catch2/catch.hpp>

#include "base/error.hpp"

using namespace sevisor;
using Catch::Matchers::Contains;
using sevisor::vmm::Pattern;

TEST_CASE("what people write for a console's lines matches") {
  const struct {
    const char* pattern;
    const char* text;
  } matching[] = {
      {"login:", "host login: "},
      {"^\\[ *[0-9]+\\.[0-9]{6}\\] Linux", "[    0.000000] Linux version"},
      {"(?:SEV|SEV-ES) active", "SEV-ES active"},
      {"\\bdev\\b", "bin dev etc"},
      {"[[:digit:]]+ CPU", "16 CPU"},
      {"\\d+\\s\\w+\\S", "12 abc"},
      {"a{2,3}?b", "aab"},
      {"\\x41\\t", "A\t"},
      {"a\\/b\\-c", "a/b-c"},
      {"x\\{[{]\\x{7b}\\p{Greek}?", "x{{{"},
      {"caf\xc3\xa9", "caf\xc3\xa9"},
      {"a.b",
       "a\xff"
       "b"},  // the console is bytes
      {"(?i)PANIC", "Kernel panic"},
  };
  for (const auto& item : matching) {
    CAPTURE(item.pattern, item.text);
    CHECK(Pattern("--expect", item.pattern).found_in(item.text));
  }
  CHECK_FALSE(Pattern("--expect", "^b").found_in("ab"));
}

TEST_CASE("what would have to go back in the text is refused by its name") {
  const struct {
    const char* pattern;
    const char* named;
  } refused[] = {
      {"a(?=b)", "the look-ahead '(?='"},
      {"a(?!b)", "the look-ahead '(?!'"},
      {"(?<=a)b", "the look-behind '(?<='"},
      {"(?<!a)b", "the look-behind '(?<!'"},
      {"(a)\\1", "the back reference '\\1'"},
      {"(a)(b)\\2", "the back reference '\\2'"},
      {"(?P<n>a)\\k<n>", "the back reference '\\k'"},
      {"(?>a)", "the atomic group '(?>'"},
      {"a**", "bad repetition operator: **"},
      {"a++", "bad repetition operator: ++"},
      {"a{1001}", "invalid repetition size: {1001}"},
      {"(", "missing"},
      {"[a", "missing"},
      {"((a{100}){100}){10}", "invalid repetition size"},
      {"a{2", "the brace at character 2 begins no repetition"},
      {"a{,2}", "the brace at character 2"},
      {"[{]{", "the brace at character 4"},
      {"[]{]{}", "the brace at character 5"},
  };
  for (const auto& item : refused) {
    CAPTURE(item.pattern);
    try {
      const Pattern pattern("--expect", item.pattern);
      FAIL("it was taken");
    } catch (const Error& error) {
      CHECK(error.exit_code() == ExitCode::kBadUsage);
      CHECK_THAT(error.tried(), Contains(item.pattern));
      CHECK_THAT(error.came_back(), Contains(item.named));
    }
  }
}
