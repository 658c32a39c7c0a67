//! The plots of docs/performance.md, as `benches/peers` draws them.

use carafe::soak::plot::{Axis, Plot, Shape};

#[path = "../../benches/peers/picture.rs"]
mod picture;

#[test]
fn a_picture_is_sound_xml_and_holds_every_label() {
    let plain = |at: f64| format!("{at}");
    let points = |last| Shape::Line(vec![(1.0, Some(1.0)), (10.0, Some(last))]);
    let plot = Plot {
        title: "This & that",
        note: "a < b".into(),
        x: Axis::log(1.0, 10.0, plain),
        y: Axis::whole(10.0, plain),
        marks: vec![
            ("first", "one", points(5.0)),
            ("second", "two", points(10.0)),
        ],
    };
    let picture = picture::picture(&plot).into_string();
    let document = roxmltree::Document::parse(&picture).unwrap();
    let texts: Vec<_> = document
        .descendants()
        .filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", "text")))
        .filter_map(|node| node.text())
        .collect();
    for label in ["This & that", "a < b", "one", "two", "10"] {
        assert!(texts.contains(&label), "{label} in {texts:?}");
    }
}
