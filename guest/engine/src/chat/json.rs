//! JSON text with the white space that the model saw in training: a blank after each comma and colon, none elsewhere.

use alloc::string::String;

/// Appends `json` with its white space replaced. What is inside of strings is kept; the text is not checked.
pub(super) fn push_spaced(json: &str, out: &mut String) {
    let mut in_string = false;
    let mut escaped = false;
    for c in json.chars() {
        if in_string {
            out.push(c);
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            ' ' | '\t' | '\r' | '\n' => {}
            ',' | ':' => {
                out.push(c);
                out.push(' ');
            }
            _ => {
                out.push(c);
                in_string = c == '"';
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_outside_of_strings_only() {
        let mut out = String::new();
        push_spaced("{\"a\\\"b : ,\" :[1,\n 2],\"c\\\\\":{}}", &mut out);
        assert_eq!(out, "{\"a\\\"b : ,\": [1, 2], \"c\\\\\": {}}");
    }
}
