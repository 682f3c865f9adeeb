// fmt's library code, which its headers hold, in the program itself: LinkedIn.cmake says why. What follows are the
// templates that those headers declare and leave to the library (fmt 9.1, core.h and format.h).
#include <fmt/format-inl.h>

namespace fmt {
inline namespace v9 {
namespace detail {
template void vformat_to(buffer<char>&, string_view, basic_format_args<buffer_context<char>>, locale_ref);
template void buffer<char>::append(const char*, const char*);
template thousands_sep_result<char> thousands_sep_impl(locale_ref);
template char decimal_point_impl(locale_ref);
template dragonbox::decimal_fp<float> dragonbox::to_decimal(float) noexcept;
template dragonbox::decimal_fp<double> dragonbox::to_decimal(double) noexcept;
template locale_ref::locale_ref(const std::locale&);
template std::locale locale_ref::get<std::locale>() const;
}  // namespace detail
}  // namespace v9
}  // namespace fmt
