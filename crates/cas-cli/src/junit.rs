//! `--junit FILE`: what tests gave, in the XML that CI systems read.
//!
//! There is no standard; elements and attributes are those that Jenkins, GitLab and GitHub's actions agree on, and for tests
//! that passed after a failure those of Maven's Surefire (`flakyFailure`). Text: docs/formats/junit.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// A target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Case {
    /// `//` and the folder of its package.
    pub(crate) package: String,
    pub(crate) name: String,
    pub(crate) elapsed: Duration,
    pub(crate) is_cached: bool,
    /// Failures before it passed or failed for good.
    pub(crate) earlier: Vec<Problem>,
    pub(crate) verdict: Verdict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    /// The test said no.
    Failed(Problem),
    /// It could not be tried.
    Error(Problem),
}

/// Why something failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) message: String,
    pub(crate) text: String,
}

/// The document: a suite for each package, both in order.
pub(crate) fn document(cases: &[Case]) -> String {
    let mut suites: BTreeMap<&str, Vec<&Case>> = BTreeMap::new();
    for case in cases {
        suites.entry(&case.package).or_default().push(case);
    }
    let mut xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n".to_owned();
    open(&mut xml, "<testsuites name=\"cas\"", &cases.iter().collect::<Vec<_>>());
    for (package, cases) in suites {
        open(&mut xml, &format!("  <testsuite name=\"{}\"", attribute(package)), &cases);
        for case in cases {
            self::case(&mut xml, case);
        }
        xml.push_str("  </testsuite>\n");
    }
    xml.push_str("</testsuites>\n");
    xml
}

fn open(xml: &mut String, begin: &str, cases: &[&Case]) {
    let failed = cases.iter().filter(|case| matches!(case.verdict, Verdict::Failed(_))).count();
    let errors = cases.iter().filter(|case| matches!(case.verdict, Verdict::Error(_))).count();
    let elapsed: Duration = cases.iter().map(|case| case.elapsed).sum();
    // Writing to a string cannot fail.
    let _ = writeln!(
        xml,
        "{begin} tests=\"{}\" failures=\"{failed}\" errors=\"{errors}\" skipped=\"0\" time=\"{}\">",
        cases.len(),
        seconds(elapsed)
    );
}

fn case(xml: &mut String, case: &Case) {
    let _ = write!(
        xml,
        "    <testcase classname=\"{}\" name=\"{}\" time=\"{}\">",
        attribute(&case.package),
        attribute(&case.name),
        seconds(case.elapsed)
    );
    xml.push_str("\n      <properties>");
    let _ = write!(xml, "<property name=\"cached\" value=\"{}\"/>", case.is_cached);
    let _ = write!(xml, "<property name=\"attempts\" value=\"{}\"/>", case.earlier.len() + 1);
    xml.push_str("</properties>\n");
    // Surefire's words: what failed and passed then is flaky, what failed each time was rerun.
    let again = if case.verdict == Verdict::Passed { "flakyFailure" } else { "rerunFailure" };
    match &case.verdict {
        Verdict::Passed => {}
        Verdict::Failed(problem) => element(xml, "failure", problem),
        Verdict::Error(problem) => element(xml, "error", problem),
    }
    for problem in &case.earlier {
        element(xml, again, problem);
    }
    xml.push_str("    </testcase>\n");
}

fn element(xml: &mut String, name: &str, problem: &Problem) {
    let message = attribute(&problem.message);
    let _ = writeln!(xml, "      <{name} message=\"{message}\" type=\"{name}\">{}</{name}>", content(&problem.text));
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.3}", elapsed.as_secs_f64())
}

/// Text between elements.
fn content(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in plain(text).chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            // Always, so that no text has the end of a section of characters in it.
            '>' => escaped.push_str("&gt;"),
            // A parser would make a line feed of it.
            '\r' => escaped.push_str("&#13;"),
            _ => escaped.push(c),
        }
    }
    escaped
}

/// Text of an attribute: parsers make blanks of its line feeds and tabs unless they are written as numbers.
fn attribute(text: &str) -> String {
    content(text).replace('"', "&quot;").replace('\n', "&#10;").replace('\t', "&#9;")
}

/// Text without colours, and with a sign in the place of what no XML document can have (XML 1.0, production 2).
fn plain(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' && rest.next_if_eq(&'[').is_some() {
            // Up to the letter that ends it (ECMA-48, 5.4).
            while rest.next_if(|c| matches!(c, '\u{20}'..='\u{3f}')).is_some() {}
            rest.next_if(|c| matches!(c, '\u{40}'..='\u{7e}'));
            continue;
        }
        let is_allowed = matches!(c, '\t' | '\n' | '\r' | '\u{20}'..='\u{7e}' | '\u{85}' | '\u{a0}'..='\u{fffd}')
            || c >= '\u{10000}';
        shown.push(if is_allowed { c } else { char::REPLACEMENT_CHARACTER });
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_xml_cannot_have_is_replaced_and_the_rest_escaped() {
        for (text, expected) in [
            ("a < b && c > \"d\"", "a &lt; b &amp;&amp; c &gt; \"d\""),
            ("]]>", "]]&gt;"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}", "\u{fffd}]0;title\u{fffd}"),
            ("\u{1b}[", ""),
            ("\0\u{8}\u{ffff}\u{fffe}\u{9f}", "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}"),
            ("tab\tline\r\nü 🦀", "tab\tline&#13;\nü 🦀"),
        ] {
            assert_eq!(content(text), expected, "{text:?}");
        }
        assert_eq!(attribute("a\n\"b\"\t"), "a&#10;&quot;b&quot;&#9;");
    }

    #[test]
    fn suites_are_packages_and_count_their_cases() {
        let case = |package: &str, name: &str, verdict| Case {
            package: package.to_owned(),
            name: name.to_owned(),
            elapsed: Duration::from_millis(1500),
            is_cached: false,
            earlier: Vec::new(),
            verdict,
        };
        let problem = || Problem { message: "exit code 1".to_owned(), text: "no".to_owned() };
        let flaky = Case { earlier: vec![problem()], ..case("//b", "y", Verdict::Passed) };
        let xml = document(&[
            case("//b", "x", Verdict::Failed(problem())),
            case("//", "z", Verdict::Error(problem())),
            flaky,
        ]);
        let expected = [
            "<testsuites name=\"cas\" tests=\"3\" failures=\"1\" errors=\"1\" skipped=\"0\" time=\"4.500\">",
            "<testsuite name=\"//\" tests=\"1\" failures=\"0\" errors=\"1\" skipped=\"0\" time=\"1.500\">",
            "<error message=\"exit code 1\" type=\"error\">no</error>",
            "<testsuite name=\"//b\" tests=\"2\" failures=\"1\" errors=\"0\" skipped=\"0\" time=\"3.000\">",
            "<failure message=\"exit code 1\" type=\"failure\">no</failure>",
            "<testcase classname=\"//b\" name=\"y\" time=\"1.500\">",
            "<property name=\"attempts\" value=\"2\"/>",
            "<flakyFailure message=\"exit code 1\" type=\"flakyFailure\">no</flakyFailure>",
        ];
        let mut rest = xml.as_str();
        for part in expected {
            let at = rest.find(part).unwrap_or_else(|| panic!("{part} is not in its place: {xml}"));
            rest = &rest[at + part.len()..];
        }
    }
}
