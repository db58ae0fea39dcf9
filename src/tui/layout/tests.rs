use super::*;

fn wishes() -> Vec<Wish> {
    let views = [Wanted::Best].into_iter().chain([MapView::Matrix, MapView::Ribbon, MapView::Both].map(Wanted::Only));
    views
        .flat_map(|view| {
            [(0, false), (0, true), (2, false), (-2, true)].map(|(zoom, maximised)| Wish { view, zoom, maximised })
        })
        .collect()
}

#[test]
fn nothing_lies_outside_or_over_something_else_at_any_size() {
    let wishes = wishes();
    for width in (1..=300).step_by(1) {
        for height in 1..=100 {
            // Two wishes and two depths of model per size: all of them come by over the sizes.
            for i in 0..2 {
                let layers = [0, 1, 2, 12, 30, 61, 78, 128][(width + height * 3 + i * 5) as usize % 8];
                let wish = wishes[(width * 7 + height + i) as usize % wishes.len()];
                check(width, height, layers, wish);
            }
        }
    }
}

fn check(width: u16, height: u16, layers: usize, wish: Wish) {
    let plan = layout(width, height, layers, wish);
    let areas = plan.areas();
    let context = || format!("{width}×{height}, {layers} layers, {wish:?}: {plan:?}");
    for (i, a) in areas.iter().enumerate() {
        assert!(a.right() <= width && a.bottom() <= height, "{a:?} is outside {}", context());
        for b in &areas[..i] {
            assert!(a.intersection(*b).is_empty(), "{a:?} covers {b:?} {}", context());
        }
    }
    assert!(plan.brief.is_some() || plan.map.is_some(), "nothing to see {}", context());
}

/// The whole map: cells, strip, axis and scale, the cells under their letters.
#[test]
fn the_map_has_cells_strip_axis_and_scale_at_every_size() {
    let (wishes, depths) = (wishes(), [12, 30, 47, 61, 78, 128]);
    for (width, height) in (60..=220).flat_map(|w| (15..=80).map(move |h| (w, h))) {
        for (i, &layers) in depths.iter().enumerate() {
            // Every depth at every size, with another wish each; all of them at the sizes that are common.
            let common = [(80, 24), (120, 38), (120, 40), (200, 60), (60, 15)].contains(&(width, height));
            let one = (width as usize * 5 + height as usize * 3 + i) % wishes.len();
            let some = if common { 0..wishes.len() } else { one..one + 1 };
            some.for_each(|wish| complete(width, height, layers, wishes[wish]));
        }
    }
}

fn complete(width: u16, height: u16, layers: usize, wish: Wish) {
    let plan = layout(width, height, layers, wish);
    let context = || format!("{width}×{height}, {layers} layers, {wish:?}: {plan:?}");
    let axis = plan.axis.unwrap_or_else(|| panic!("no strip {}", context()));
    let map = plan.map.unwrap_or_else(|| panic!("no map {}", context()));
    let drawn: Vec<Rect> = map.matrix.into_iter().chain(map.ribbon).collect();
    assert!(!drawn.is_empty(), "no cells {}", context());
    for area in drawn {
        assert!(area.height > 0 && (area.x, area.width) == (axis.strip.x, axis.strip.width), "{area:?} {}", context());
    }
    for row in [axis.strip, axis.ruler, axis.coverage] {
        assert!(row.width > 0 && row.height == 1, "{row:?} {}", context());
    }
    assert!(map.caption.width >= 20 && map.caption.height == 1, "no scale {}", context());
    // All layers are seen wherever the strip has a column for each.
    if wish.zoom <= 0 && layers + 2 <= width as usize && (wish.maximised || plan.class == Class::Small) {
        assert_eq!(axis.strip.width / axis.cell, layers as u16, "{}", context());
    }
}

#[test]
fn every_wish_holds_at_common_sizes() {
    for (width, height) in [(60, 15), (80, 24), (99, 29), (100, 30), (120, 40), (160, 50), (200, 60), (300, 100)] {
        for layers in [1, 2, 12, 30, 47, 61, 78, 128] {
            for wish in wishes() {
                check(width, height, layers, wish);
            }
        }
    }
}

#[test]
fn sizes_take_the_class_of_their_smaller_side() {
    let class = |w, h| layout(w, h, 30, Wish::default()).class;
    assert_eq!(class(29, 50), Class::Tiny);
    assert_eq!(class(200, 14), Class::ExtraSmall);
    assert_eq!([class(80, 24), class(300, 29), class(99, 60)], [Class::Small; 3]);
    assert_eq!([class(120, 40), class(200, 49)], [Class::Medium; 2]);
    assert_eq!(class(160, 50), Class::Large);
}

#[test]
fn the_map_is_the_largest_that_fits() {
    let map = |w, h, layers| layout(w, h, layers, Wish::default()).map.expect("a map");
    let view = |w, h, layers| (map(w, h, layers).view, map(w, h, layers).cell);
    assert_eq!(view(80, 24, 78), (MapView::Ribbon, Cell::Half));
    assert_eq!(view(80, 24, 12), (MapView::Matrix, Cell::Block { w: 3, h: 1 }));
    assert_eq!(view(80, 24, 30), (MapView::Matrix, Cell::Half));
    assert_eq!(view(120, 40, 61), (MapView::Matrix, Cell::Half));
    assert_eq!(view(120, 40, 78), (MapView::Both, Cell::Pooled(2)));
    assert_eq!(view(200, 60, 78), (MapView::Both, Cell::Half));
    // Maximised, a part of the rows is seen, a layer per half row, and strip and scale stay.
    let whole = layout(120, 40, 78, Wish { maximised: true, ..Wish::default() });
    assert_eq!(whole.map.and_then(|m| m.matrix), Some(Rect::new(GUTTER, 3, 78, 35)));
    // At 80 columns the margin gives way, so that all 78 layers are seen.
    let narrow = layout(80, 24, 78, Wish { maximised: true, ..Wish::default() });
    assert_eq!(narrow.axis.map(|a| (a.strip.x, a.strip.width)), Some((2, 78)));
}

#[test]
fn the_strip_is_the_axis_of_the_matrix() {
    for (w, h, layers) in [(80, 24, 12), (120, 40, 12), (120, 40, 61), (120, 40, 78), (200, 60, 78), (200, 60, 30)] {
        let plan = layout(w, h, layers, Wish::default());
        let (axis, matrix) = (plan.axis.expect("a strip"), plan.map.and_then(|m| m.matrix).expect("a matrix"));
        assert_eq!((axis.strip.x, axis.strip.width), (matrix.x, matrix.width), "{w}×{h}, {layers} layers");
    }
}
