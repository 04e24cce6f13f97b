#include "cli/html_page.h"

#include <gtest/gtest.h>

namespace finchkv::cli {
namespace {

PageInput small_page() {
  PageInput page;
  page.title = "notes.txt";
  page.figures = {{"policy", "finch-span"}};
  page.doc_tokens = 4;
  page.kept = 2;
  page.rows = 1;
  page.origins = {{0, 2}, {2, 3}};
  page.token_texts = std::vector<std::string>{"One", " two", " three", " four"};
  return page;
}

std::string render(const PageInput& page) {
  auto html = make_html_page(page);
  EXPECT_TRUE(html.is_ok()) << html.status().message();
  return html.is_ok() ? *html : "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

TEST(HtmlPage, MarksTokensByHowManyListsKeptThem) {
  const std::string html = render(small_page());
  EXPECT_TRUE(contains(html, "title=\"token 2: in 2 of 2\"> three</mark>"));
  EXPECT_TRUE(contains(html, "title=\"token 0: in 1 of 2\">One</mark> two<mark"));
}

TEST(HtmlPage, EscapesWhatComesFromOutside) {
  PageInput page = small_page();
  page.title = "</title><script>alert(1)</script>";
  page.figures = {{"<b>name", "\"quoted\" & <i>value</i>"}};
  page.token_texts = std::vector<std::string>{"<script>", "</div>", "\"' onload=", "&amp;"};
  const std::string html = render(page);
  EXPECT_FALSE(contains(html, "<script"));
  EXPECT_FALSE(contains(html, "<b>name"));
  EXPECT_FALSE(contains(html, "<i>value"));
  EXPECT_TRUE(contains(html, "&lt;script&gt;"));
  EXPECT_TRUE(contains(html, "&quot;&#39; onload="));
  EXPECT_TRUE(contains(html, "&amp;amp;"));
}

TEST(HtmlPage, MarkupSplitOverTokensStaysText) {
  PageInput page = small_page();
  page.token_texts = std::vector<std::string>{"<scr", "ipt", ">ale", "rt(1)"};
  EXPECT_FALSE(contains(render(page), "<scr"));
}

TEST(HtmlPage, NeedsNothingFromOutside) {
  const std::string html = render(small_page());
  for (const std::string_view part : {"http://", "https://", "url(", "@import", "<script", "<link", "<img", "src="}) {
    EXPECT_FALSE(contains(html, part)) << part;
  }
  EXPECT_TRUE(contains(html, "default-src 'none'"));
}

TEST(HtmlPage, JoinsTokensThatSplitACharacter) {
  PageInput page = small_page();
  page.token_texts = std::vector<std::string>{"caf", "\xC3", "\xA9", "!"};
  const std::string html = render(page);
  EXPECT_TRUE(contains(html, "title=\"tokens 1-2: in 2 of 2\">\xC3\xA9</mark>"));
}

TEST(HtmlPage, DamagedTextIsReplaced) {
  PageInput page = small_page();
  page.token_texts = std::vector<std::string>{"a\x1b[31m", "\xFF", "b", std::string(1, '\0')};
  const std::string html = render(page);
  EXPECT_FALSE(contains(html, "\x1b"));
  EXPECT_FALSE(contains(html, "\xFF"));
  EXPECT_FALSE(contains(html, std::string_view("\0", 1)));
  EXPECT_TRUE(contains(html, "\xEF\xBF\xBD"));
}

TEST(HtmlPage, WithoutTextShowsPositionsAndSaysWhy) {
  PageInput page = small_page();
  page.token_texts.reset();
  page.why_no_text = "name the model";
  const std::string html = render(page);
  EXPECT_TRUE(contains(html, "name the model"));
  EXPECT_TRUE(contains(html, "title=\"token 3: in 1 of 2\""));
}

TEST(HtmlPage, AHugeDocumentWithoutTextHasItsMapOnly) {
  PageInput page = small_page();
  page.token_texts.reset();
  page.doc_tokens = (std::uint64_t{1} << 31) - 1;
  const std::string html = render(page);
  EXPECT_TRUE(contains(html, "too much for a page"));
  EXPECT_TRUE(contains(html, "</html>"));
  EXPECT_LT(html.size(), std::size_t{1} << 20);
}

TEST(HtmlPage, RefusesOriginsPastTheDocument) {
  PageInput page = small_page();
  page.origins[1].push_back(4);
  EXPECT_EQ(make_html_page(page).status().code(), StatusCode::kCorrupt);
}

}  // namespace
}  // namespace finchkv::cli
