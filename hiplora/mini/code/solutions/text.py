"""Functions of the code benchmark: text. Read as text; the doctests are the cases that a solution must pass."""


def reverse_text(text):
    """Return the text in reverse order.

    >>> reverse_text('abc')
    'cba'
    >>> reverse_text('')
    ''
    >>> reverse_text('stressed')
    'desserts'
    """
    return text[::-1]


def to_upper(text):
    """Return the text in upper case.

    >>> to_upper('abc')
    'ABC'
    >>> to_upper('Hi there')
    'HI THERE'
    >>> to_upper('')
    ''
    """
    return text.upper()


def is_palindrome(text):
    """Return True if the text reads the same backward as forward.

    >>> is_palindrome('level')
    True
    >>> is_palindrome('python')
    False
    >>> is_palindrome('')
    True
    >>> is_palindrome('abba')
    True
    """
    return text == text[::-1]


def count_vowels(text):
    """Return the number of vowels (a, e, i, o, u) in the text.

    >>> count_vowels('banana')
    3
    >>> count_vowels('sky')
    0
    >>> count_vowels('queue')
    4
    """
    return sum(1 for letter in text if letter in "aeiou")


def count_words(text):
    """Return the number of words in the text. Words are separated by spaces.

    >>> count_words('the red fox')
    3
    >>> count_words('')
    0
    >>> count_words('hello')
    1
    """
    return len(text.split())


def longest_word(words):
    """Return the longest word in the list, the first one if there are several.

    >>> longest_word(['a', 'abc', 'ab'])
    'abc'
    >>> longest_word(['x'])
    'x'
    >>> longest_word(['one', 'two'])
    'one'
    """
    return max(words, key=len)


def is_anagram(first, second):
    """Return True if the two words have the same letters in any order.

    >>> is_anagram('listen', 'silent')
    True
    >>> is_anagram('cat', 'dog')
    False
    >>> is_anagram('aab', 'abb')
    False
    """
    return sorted(first) == sorted(second)


def letter_counts(text):
    """Return a dictionary from each letter of the text to the number of times it occurs.

    >>> letter_counts('aab')
    {'a': 2, 'b': 1}
    >>> letter_counts('')
    {}
    >>> letter_counts('xyx')
    {'x': 2, 'y': 1}
    """
    return {letter: text.count(letter) for letter in text}


def full_name(first, last):
    """Return the first and the last name joined by a space.

    >>> full_name('Ada', 'Lovelace')
    'Ada Lovelace'
    >>> full_name('A', 'B')
    'A B'
    >>> full_name('Alan', 'Turing')
    'Alan Turing'
    """
    return first + " " + last
