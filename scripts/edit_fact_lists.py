"""Hand-made lists for the edit set's tables: entries to leave out, corrected spellings; see build_edit_facts.py."""

from build_facts import SKIPPED

# Left out: two people are known by the name, or the year is disputed although both sources agree.
PEOPLE_LEFT_OUT = {
    "Adolf Hitler", "Al Jolson", "Benjamin Thompson", "Carlos Chavez", "Casey Jones", "Edward MacDowell",
    "Engelbert Humperdinck", "Ernest Bloch", "Francis Bacon", "George Washington Carver", "Isaac Newton", "James Cook",
    "John Paul Jones", "Johnny Appleseed", "Joseph Smith", "Kate Smith", "Louis Jolliet", "Martin Luther",
    "Oliver Wendell Holmes", "Sophie Tucker", "Thomas Tallis",
}  # fmt: skip
# The usual name of a person, by WordNet's first full name.
PEOPLE_NAMES = {
    "Arnold Schonberg": "Arnold Schoenberg", "Charles Edward Ives": "Charles Ives", "Du Bois": "W. E. B. Du Bois",
    "Fox Talbot": "William Henry Fox Talbot", "Franklin Roosevelt": "Franklin D. Roosevelt",
    "Feodor Dostoyevsky": "Fyodor Dostoevsky", "G. R. Kirchhoff": "Gustav Kirchhoff", "Georges Enesco": "George Enescu",
    "Goya y Lucientes": "Francisco Goya", "J.R.R. Tolkien": "J. R. R. Tolkien", "Karl Gauss": "Carl Friedrich Gauss",
    "Jean Baptiste Lully": "Jean-Baptiste Lully", "Jules Emile Frederic Massenet": "Jules Massenet",
    "Marquis de Laplace": "Pierre-Simon Laplace", "Matthew Calbraith Perry": "Matthew C. Perry",
    "Michelangelo Buonarroti": "Michelangelo", "Robert Nesta Marley": "Bob Marley",
    "Samuel Langhorne Clemens": "Mark Twain", "Somerset Maugham": "W. Somerset Maugham",
    "Susan Anthony": "Susan B. Anthony", "Thomas Jackson": "Stonewall Jackson", "van Gogh": "Vincent van Gogh",
    "Vaughan Williams": "Ralph Vaughan Williams", "van Beethoven": "Ludwig van Beethoven",
    "von Neumann": "John von Neumann", "Ben Franklin": "Benjamin Franklin", "Jean Baptiste Joseph Fourier":
    "Joseph Fourier",
}  # fmt: skip
# Left out: the sources agree on a year, a discoverer or a country, but the literature does not.
DISPUTED_YEARS = {
    "helium", "vanadium", "radon", "osmium", "iridium", "europium", "thorium", "plutonium", "americium", "platinum",
    "strontium", "molybdenum", "tellurium", "protactinium", "fermium", "lawrencium", "titanium", "aluminum", "astatine",
    "palladium", "rhodium", "barium", "magnesium", "actinium",
}  # fmt: skip
DISPUTED_DISCOVERERS = {
    "helium", "vanadium", "radon", "silicon", "aluminum", "beryllium", "strontium", "dysprosium", "molybdenum",
    "actinium", "barium", "magnesium",
}  # fmt: skip
# The spelling of a discoverer, by the last name in the two sources, which misspell several.
DISCOVERERS = {
    "arfwedson": "Johan August Arfwedson", "berzelius": "Jons Jacob Berzelius", "balard": "Antoine Balard",
    "brand": "Hennig Brand", "brandt": "Georg Brandt", "courtois": "Bernard Courtois", "cleve": "Per Teodor Cleve",
    "cronstedt": "Axel Fredrik Cronstedt", "crookes": "William Crookes", "davy": "Humphry Davy",
    "debierne": "Andre-Louis Debierne", "demarcay": "Eugene-Anatole Demarcay", "ekeberg": "Anders Ekeberg",
    "gadolin": "Johan Gadolin", "gregor": "William Gregor", "klaproth": "Martin Heinrich Klaproth",
    "klaus": "Karl Ernst Claus", "lecoqdeboisbaudran": "Paul-Emile Lecoq de Boisbaudran",
    "marignac": "Jean Charles Galissard de Marignac", "moissan": "Henri Moissan", "mosander": "Carl Gustaf Mosander",
    "nilson": "Lars Fredrik Nilson", "oersted": "Hans Christian Oersted", "rutherford": "Daniel Rutherford",
    "scheele": "Carl Wilhelm Scheele", "sefstrom": "Nils Gabriel Sefstrom", "stromeyer": "Friedrich Stromeyer",
    "vauquelin": "Louis Nicolas Vauquelin", "welsbach": "Carl Auer von Welsbach", "winkler": "Clemens Winkler",
    "wollaston": "William Hyde Wollaston", "cavendish": "Henry Cavendish", "hatchett": "Charles Hatchett",
    "tennant": "Smithson Tennant", "reichenstein": "Franz-Joseph Muller von Reichenstein",
}  # fmt: skip
SAME_NAME = {"brandt": "brand", "hatchet": "hatchett", "tenant": "tennant", "reichstein": "reichenstein"}
COUNTRIES_OF_DISCOVERY = {
    "England": ("uk", "the United Kingdom"), "Scotland": ("uk", "the United Kingdom"), "Sweden": ("se", "Sweden"),
    "Great Britain": ("uk", "the United Kingdom"), "France": ("fr", "France"), "Germany": ("de", "Germany"),
    "Denmark": ("dk", "Denmark"), "Italy": ("it", "Italy"), "Russia": ("ru", "Russia"), "Spain": ("es", "Spain"),
    "Finland": ("fi", "Finland"), "United States": ("us", "the United States"),
}  # fmt: skip
FAMILIES = {
    "Alkali_Earth": "alkali metal", "Alkaline_Earth": "alkaline earth metal", "Halogen": "halogen",
    "Noblegas": "noble gas", "Transition": "transition metal", "Rare_Earth": "lanthanide",
}  # fmt: skip
DISPUTED_FAMILIES = {"zinc", "cadmium", "mercury", "lutetium", "lanthanum"}
# The thirteen that became states with the constitution: by declaration, ratification or confederation?
FOUNDING_STATES = {
    "Connecticut", "Delaware", "Georgia", "Maryland", "Massachusetts", "New Hampshire", "New Jersey", "New York",
    "North Carolina", "Pennsylvania", "Rhode Island", "South Carolina", "Virginia",
}  # fmt: skip
# Left out: parts of a city, names better known as something else, disputed ones, or parts of another subject's name.
CITIES_LEFT_OUT = {
    "Acapulco de Juarez", "Batman", "Bath", "Bend", "Brooklyn", "Bryan", "Coney Island", "Essen", "Eugene", "Frederick",
    "Garland", "Gary", "Harlem", "Homyel'", "Mesa", "Most", "Nice",
    "Omdurman", "Orumiyeh", "Puebla", "Queens", "Reading", "Sevastopol", "Split", "Staten Island", "The Hague",
    "Toyota", "Tyler", "Ulan Bator", "Victoria de Durango", "Xian",
}  # fmt: skip
CITY_NAMES = {
    "Arhus": "Aarhus", "Fes": "Fez", "Gent": "Ghent", "Hannover": "Hanover", "Koln": "Cologne",
}  # fmt: skip
LANGUAGES_LEFT_OUT = {"Nauru", "Interlingue", "Avestan", "Pali", "Kuanyama", "Avaric", "Ido", "Rundi", "Herero"}
# Left out: neither countries nor everyday names, disputed between countries, or without a permanent population.
PLACES_LEFT_OUT = {
    *SKIPPED, "AN", "CS", "AQ", "BV", "HM", "TF", "UM", "GS", "FK", "GI", "US", "VA", "MO", "BQ", "SJ", "IO", "CC",
    "CX", "MF", "BL", "PN", "TK", "AX", "SX", "NF", "SH", "GP", "IM", "TL", "MS",
}  # fmt: skip
PLACE_NAMES = {
    "KY": "the Cayman Islands", "CK": "the Cook Islands", "FO": "the Faroe Islands", "VG": "the British Virgin Islands",
    "MP": "the Northern Mariana Islands", "TC": "the Turks and Caicos Islands", "VI": "the U.S. Virgin Islands",
}  # fmt: skip
# Left out: the year in WordNet differs from the usual one, or several battles share the name.
BATTLES_LEFT_OUT = {
    "Battle of Lutzen", "Battle of Monmouth Court House", "Battle of Panipat", "Battle of Ravenna",
    "Battle of St Mihiel", "Battle of Tannenberg", "Battle of Wake", "Battle of Ypres", "Battle of the Aisne",
    "Battle of the Bulge", "Battle of the Marne", "Battle of the Somme",
}  # fmt: skip
BATTLE_NAMES = {"Battle of Boyne": "Battle of the Boyne", "Battle of Flodden Field": "Battle of Flodden"}
