# Makes a manual page (troff, macros man) of what `sevisor [COMMAND] --help` prints.
#   sevisor COMMAND --help | awk -f man-page.awk -v name="sevisor COMMAND" -v version=0.1.0
# The help has a line that says what the command does, "Usage:", blocks of entries ("Options:", "Subcommands:"; two spaces, the
# entry, at least two spaces, what it is; longer ones go on in indented lines), and free text, which is kept as it is.
function escaped(text) {
  gsub(/\\/, "\\e", text)
  gsub(/-/, "\\-", text)
  gsub(/'/, "\\(aq", text)
  sub(/^\./, "\\\\\\&.", text)
  return text
}
function leave_free_text() {
  if (free) print ".fi"
  free = 0
}
function begin_section(title) {
  leave_free_text()
  print ".SH " toupper(title)
  block = title
}
BEGIN { page = name; gsub(/ /, "-", page) }
NR == 1 {
  printf ".TH %s 1 \"\" \"sevisor %s\" \"User Commands\"\n.SH NAME\n%s \\- %s\n", toupper(page), version, page, escaped($0)
  next
}
/^Usage: / {
  print ".SH SYNOPSIS\n.nf\n" escaped(substr($0, 8)) "\n.fi"
  next
}
/^(Options|Subcommands|Positionals):$/ {
  sub(/:$/, "")
  begin_section($0)
  next
}
/^$/ {
  if (free) print ""
  else block = ""
  next
}
block != "" && /^  [^ ]/ {
  text = substr($0, 3)
  at = match(text, /  +/)
  entry = at ? substr(text, 1, at - 1) : text
  print ".TP\n.B " escaped(entry)
  if (at) print escaped(substr(text, at + RLENGTH))
  next
}
block != "" && /^ / {
  sub(/^ +/, "")
  print escaped($0)
  next
}
{
  if (!free) {
    print (notes++ ? ".PP" : ".SH NOTES") "\n.nf"
    free = 1
  }
  block = ""
  print escaped($0)
}
END {
  leave_free_text()
  if (also != "") print ".SH SEE ALSO\n" also
}
